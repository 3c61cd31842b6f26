// Numbers, durations and names as people read them.

const THIN = "\u202f";

export function percent(share) {
  return `${Math.round(share * 100)}${THIN}%`;
}

/** A measured number as exact as it is worth reading; a dash where there is none. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(Number.isInteger(value) || Math.abs(value) >= 100 ? 0 : 1);
}

export function withUnit(value, unit) {
  return value === null || value === undefined ? "–" : `${number(value)}${THIN}${unit}`;
}

export function duration(seconds) {
  const s = Math.floor(seconds);
  const minutes = Math.floor(s / 60);
  const hours = Math.floor(minutes / 60);
  const days = Math.floor(hours / 24);
  if (s < 60) return `${s}${THIN}s`;
  if (minutes < 60) return `${minutes}${THIN}min ${s % 60}${THIN}s`;
  if (hours < 24) return `${hours}${THIN}h ${minutes % 60}${THIN}min`;
  return `${days}${THIN}d ${hours % 24}${THIN}h`;
}

export function size(bytes) {
  if (bytes < 1000) return `${bytes}${THIN}B`;
  if (bytes < 1e6) return `${number(bytes / 1000)}${THIN}kB`;
  return `${number(bytes / 1e6)}${THIN}MB`;
}

/** A moment as ISO 8601 says it, in this reader's own time. */
export function moment(iso) {
  return new Date(iso).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

/** A label for people: `low_quality` is a face that is not judged. */
export function title(word) {
  if (word === "low_quality") return "Not judged";
  return word.charAt(0).toUpperCase() + word.slice(1);
}
