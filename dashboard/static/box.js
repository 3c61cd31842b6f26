// How the box is doing: three tiles with their recent course, and the rest as a list.

import { Chart } from "./chart.js";
import { duration, number, withUnit } from "./format.js";

const SPAN_MS = 300_000;
const SPACING_MS = 1000;

const TILES = [
  {
    key: "fps",
    name: "Frames per second",
    unit: "per second",
    least: 10,
    value: (kpi) => kpi.fps,
    shown: (kpi) => number(kpi.fps),
    beside: (kpi) => `${kpi.frames.toLocaleString("en")} frames so far`,
  },
  {
    key: "e2e_p95_ms",
    name: "Latency, p95",
    unit: "ms",
    least: 10,
    value: (kpi) => kpi.e2e_ms.p95,
    shown: (kpi) => withUnit(kpi.e2e_ms.p95, "ms"),
    beside: (kpi) => `p50 ${number(kpi.e2e_ms.p50)} · p99 ${number(kpi.e2e_ms.p99)}`,
  },
  {
    key: "cpu_percent",
    name: "CPU, of one core",
    unit: "percent",
    least: 50,
    value: (kpi) => kpi.cpu_percent,
    shown: (kpi) => withUnit(Math.round(kpi.cpu_percent), "%"),
    beside: (kpi) => `${Math.round(kpi.rss_mb)} MB memory`,
  },
];

function drops(kpi) {
  const reasons = Object.entries(kpi.drops).filter(([, count]) => count > 0);
  if (reasons.length === 0) return "0";
  const total = reasons.reduce((sum, [, count]) => sum + count, 0);
  return `${total} (${reasons.map(([reason, count]) => `${count} ${reason}`).join(", ")})`;
}

const DETAILS = [
  ["Faces", (kpi) => String(kpi.faces)],
  ["Flips per minute", (kpi) => number(kpi.flips_per_minute)],
  ["Dropped frames", drops],
  ["Uptime", (kpi) => duration(kpi.uptime_s)],
  ["Detector", (kpi) => kpi.detector],
  ["Backend", (kpi) => kpi.backend],
  ["Model", (kpi) => kpi.model],
];

function child(parent, tag, className) {
  const node = document.createElement(tag);
  node.className = className;
  parent.append(node);
  return node;
}

export class Box {
  constructor(tiles, details) {
    this.points = [];
    this.tiles = TILES.map((tile) => {
      const root = child(tiles, "div", "tile");
      root.dataset.kpi = tile.key;
      child(root, "h3", "tile-name").textContent = tile.name;
      const value = child(root, "p", "tile-value");
      const chart = new Chart(tile);
      root.append(chart.root);
      const beside = child(root, "p", "tile-beside");
      value.textContent = beside.textContent = "–";
      return { ...tile, valueNode: value, besideNode: beside, chart };
    });
    this.details = DETAILS.map(([name, shown]) => {
      const pair = child(details, "div", name === "Model" ? "pair wide" : "pair");
      child(pair, "dt", "").textContent = name;
      const node = child(pair, "dd", "");
      node.textContent = "–";
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
      tile.valueNode.textContent = tile.shown(kpi);
      tile.besideNode.textContent = tile.beside(kpi);
    }
    for (const { node, shown } of this.details) {
      const text = shown(kpi);
      if (node.textContent !== text) node.textContent = text;
    }
    const now = performance.now();
    if (this.points.length === 0 || now - this.points.at(-1).at >= SPACING_MS) {
      const values = this.tiles.map(({ key, value }) => [key, value(kpi)]);
      this.points.push({ at: now, ...Object.fromEntries(values) });
      this.draw();
    }
  }

  draw() {
    const now = performance.now();
    this.points = this.points.filter(({ at }) => now - at <= SPAN_MS);
    for (const { key, chart } of this.tiles) {
      chart.draw(
        this.points.map((point) => ({ at: point.at, value: point[key] })),
        now,
        SPAN_MS,
      );
    }
  }
}
