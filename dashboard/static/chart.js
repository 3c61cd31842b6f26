// A small line chart of one number over the last minutes, as SVG.

import { number } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 72;
const GAP_MS = 3500; // Points further apart are not joined: nothing is known between them.

/** The smallest of 1, 2, 5 × 10ⁿ that is not below `value`. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value);
}

function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export class Chart {
  /** `name` and `unit` are for those who hear the chart; `least` is the lowest top of its scale. */
  constructor({ name, unit, least }) {
    Object.assign(this, { name, unit, least });
    this.root = document.createElement("div");
    this.root.className = "chart";
    this.svg = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
    });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    const grid = [0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) =>
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }),
    );
    this.svg.append(...grid, this.area, this.line);
    this.top = document.createElement("span");
    this.top.className = "top";
    this.top.setAttribute("aria-hidden", "true");
    this.root.append(this.svg, this.top);
  }

  /** `points` are `{at, value}`, oldest first, `at` in ms; drawn from `now - span` to `now`. */
  draw(points, now, span) {
    const known = points.filter(({ value }) => value !== null && value !== undefined);
    const values = known.map(({ value }) => value);
    const top = niceTop(Math.max(this.least, ...values));
    let line = "";
    let area = "";
    let start = null;
    let last = null;
    for (const { at, value } of known) {
      const x = (((at - now + span) / span) * WIDTH).toFixed(1);
      const y = (HEIGHT - (value / top) * (HEIGHT - 1) - 0.5).toFixed(1);
      if (last === null || at - last.at > GAP_MS) {
        if (start !== null) area += `L${last.x} ${HEIGHT}Z`;
        start = x;
        line += `M${x} ${y}`;
        area += `M${x} ${HEIGHT}L${x} ${y}`;
      } else {
        line += `L${x} ${y}`;
        area += `L${x} ${y}`;
      }
      last = { at, x };
    }
    if (last !== null) area += `L${last.x} ${HEIGHT}Z`;
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    this.top.textContent = String(top);
    const range = values.length
      ? `now ${number(values.at(-1))}, lowest ${number(Math.min(...values))}, highest ${number(Math.max(...values))} ${this.unit}`
      : "no data yet";
    this.svg.setAttribute("aria-label", `${this.name} over the last 5 minutes: ${range}`);
  }
}
