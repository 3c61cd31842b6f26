// How the box is doing: tiles with their recent course, and the rest as a list.

import { Chart } from "./chart.js";
import { element, write } from "./dom.js";
import { duration, number, withUnit } from "./format.js";

const SPAN_MS = 300_000;
const SPACING_MS = 1000;

const total = (counts) => Object.values(counts).reduce((sum, count) => sum + count, 0);

/** `{reason: count}` → "10 (7 busy, 3 unreadable)". */
function reasons(counts) {
  const named = Object.entries(counts).filter(([, count]) => count > 0);
  if (named.length === 0) return "none";
  return named.map(([reason, count]) => `${count} ${reason}`).join(", ");
}

// A tile draws `key`, and the keys in `beside` as thinner lines; `values` are read from KPIs. With
// `counts` the value only ever grows, and the chart shows what came anew.
const TILES = [
  {
    key: "fps",
    name: "Frames per second",
    unit: "per second",
    least: 10,
    values: (kpi) => ({ fps: kpi.fps }),
    shown: (kpi) => number(kpi.fps),
    note: (kpi) => `${kpi.frames.toLocaleString("en")} frames so far`,
  },
  {
    key: "e2e_p95_ms",
    beside: ["e2e_p50_ms", "e2e_p99_ms"],
    name: "Latency, p95",
    unit: "ms",
    least: 10,
    values: ({ e2e_ms: { p50, p95, p99 } }) => ({
      e2e_p50_ms: p50,
      e2e_p95_ms: p95,
      e2e_p99_ms: p99,
    }),
    shown: (kpi) => withUnit(kpi.e2e_ms.p95, "ms"),
    note: (kpi) => `p50 ${number(kpi.e2e_ms.p50)} · p99 ${number(kpi.e2e_ms.p99)}`,
  },
  {
    key: "flips_per_minute",
    name: "Flips per minute",
    unit: "per minute of a face",
    least: 10,
    values: (kpi) => ({ flips_per_minute: kpi.flips_per_minute }),
    shown: (kpi) => number(kpi.flips_per_minute),
    note: () => "changes of a shown label",
  },
  {
    key: "drops",
    counts: true,
    name: "Dropped frames",
    unit: "per second",
    least: 10,
    values: (kpi) => ({ drops: total(kpi.drops) }),
    shown: (kpi) => total(kpi.drops).toLocaleString("en"),
    note: (kpi) => reasons(kpi.drops),
  },
  {
    key: "cpu_percent",
    name: "CPU, of one core",
    unit: "percent",
    least: 50,
    values: (kpi) => ({ cpu_percent: kpi.cpu_percent }),
    shown: (kpi) => withUnit(Math.round(kpi.cpu_percent), "%"),
    note: (kpi) => kpi.backend,
  },
  {
    key: "rss_mb",
    name: "Memory",
    unit: "MB",
    least: 100,
    values: (kpi) => ({ rss_mb: kpi.rss_mb }),
    shown: (kpi) => withUnit(Math.round(kpi.rss_mb), "MB"),
    note: () => "of the program",
  },
  {
    key: "temperature_c",
    name: "Temperature",
    unit: "degrees Celsius",
    least: 50,
    values: (kpi) => ({ temperature_c: kpi.temperature_c }),
    shown: (kpi) => withUnit(kpi.temperature_c, "°C"),
    note: (kpi) => (kpi.temperature_c === null ? "this machine does not tell" : "processor"),
  },
];

const DETAILS = [
  ["Faces", (kpi) => String(kpi.faces)],
  ["Uptime", (kpi) => duration(kpi.uptime_s)],
  ["Camera", (kpi) => kpi.camera],
  ["Camera events", (kpi) => reasons(kpi.camera_events)],
  ["Detector", (kpi) => kpi.detector],
  ["Model", (kpi) => kpi.model],
];

/** How much `value` grew from each point to the next; a restart begins at 0 again. */
function growth(points) {
  return points.slice(1).map(({ at, value }, i) => ({
    at,
    value: Math.max(0, value - points[i].value),
  }));
}

export class Box {
  constructor(tiles, details) {
    this.points = [];
    this.tiles = TILES.map((tile) => {
      const root = element("div", "tile");
      root.dataset.kpi = tile.key;
      const value = element("p", "tile-value", "–");
      const note = element("p", "tile-note", "–");
      const chart = new Chart({ ...tile, beside: tile.beside?.length });
      root.append(element("h3", "tile-name", tile.name), value, chart.root, note);
      tiles.append(root);
      return { ...tile, valueNode: value, noteNode: note, chart };
    });
    this.details = DETAILS.map(([name, shown]) => {
      const pair = element("div", "pair");
      const node = element("dd", "", "–");
      pair.append(element("dt", "", name), node);
      details.append(pair);
      return { node, shown };
    });
    this.draw();
  }

  /** Take over the server's memory; before it began (it may have restarted), keep one's own. */
  remember(points) {
    const now = performance.now();
    const theirs = points.map(({ age_s: age, ...values }) => ({ at: now - age * 1000, ...values }));
    const begin = (theirs[0]?.at ?? now) - SPACING_MS / 2;
    this.points = [...this.points.filter(({ at }) => at < begin), ...theirs];
    this.draw();
  }

  show(kpi) {
    for (const tile of this.tiles) {
      write(tile.valueNode, tile.shown(kpi));
      write(tile.noteNode, tile.note(kpi));
    }
    for (const { node, shown } of this.details) write(node, shown(kpi));
    const now = performance.now();
    if (this.points.length === 0 || now - this.points.at(-1).at >= SPACING_MS) {
      this.points.push(Object.assign({ at: now }, ...this.tiles.map(({ values }) => values(kpi))));
      this.draw();
    }
  }

  draw() {
    const now = performance.now();
    this.points = this.points.filter(({ at }) => now - at <= SPAN_MS);
    for (const { key, beside = [], counts, chart } of this.tiles) {
      const courses = [key, ...beside].map((name) => {
        const course = this.points.map((point) => ({ at: point.at, value: point[name] }));
        return counts ? growth(course) : course;
      });
      chart.draw(courses, now, SPAN_MS);
    }
  }
}
