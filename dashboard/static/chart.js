// A small line chart of one number, or a few alike, over the last minutes, as SVG.

import { element } from "./dom.js";
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

export function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** `[{at, value}]` → the course as a path, and what lies under it as another. */
function paths(points, top, now, span) {
  let line = "";
  let area = "";
  let last = null;
  for (const { at, value } of points) {
    const x = (((at - now + span) / span) * WIDTH).toFixed(1);
    const y = (HEIGHT - (value / top) * (HEIGHT - 1) - 0.5).toFixed(1);
    if (last === null || at - last.at > GAP_MS) {
      if (last !== null) area += `L${last.x} ${HEIGHT}Z`;
      line += `M${x} ${y}`;
      area += `M${x} ${HEIGHT}L${x} ${y}`;
    } else {
      line += `L${x} ${y}`;
      area += `L${x} ${y}`;
    }
    last = { at, x };
  }
  if (last !== null) area += `L${last.x} ${HEIGHT}Z`;
  return { line, area };
}

export class Chart {
  /**
   * `name` and `unit` are for those who hear the chart; `least` is the lowest top of its scale;
   * `beside` says how many further lines go with the main one.
   */
  constructor({ name, unit, least, beside = 0 }) {
    Object.assign(this, { name, unit, least });
    this.root = element("div", "chart");
    this.svg = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      role: "img",
    });
    this.area = svg("path", { class: "area" });
    this.line = svg("path", { class: "line" });
    this.others = Array.from({ length: beside }, () => svg("path", { class: "line-beside" }));
    const grid = [0.5, HEIGHT / 2, HEIGHT - 0.5].map((y) =>
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }),
    );
    this.svg.append(...grid, this.area, ...this.others, this.line);
    this.top = element("span", "top");
    this.top.setAttribute("aria-hidden", "true");
    this.root.append(this.svg, this.top);
  }

  /**
   * `courses` are lists of `{at, value}`, oldest first, `at` in ms: the main one, then those beside
   * it; drawn from `now - span` to `now`.
   */
  draw(courses, now, span) {
    const known = courses.map((points) =>
      points.filter(({ value }) => value !== null && value !== undefined),
    );
    const top = niceTop(Math.max(this.least, ...known.flat().map(({ value }) => value)));
    const main = paths(known[0], top, now, span);
    this.line.setAttribute("d", main.line);
    this.area.setAttribute("d", main.area);
    this.others.forEach((other, i) =>
      other.setAttribute("d", paths(known[i + 1], top, now, span).line),
    );
    this.top.textContent = String(top);
    const values = known[0].map(({ value }) => value);
    const range = values.length
      ? `now ${number(values.at(-1))}, lowest ${number(Math.min(...values))}, highest ${number(Math.max(...values))} ${this.unit}`
      : "no data yet";
    this.svg.setAttribute("aria-label", `${this.name} over the last 5 minutes: ${range}`);
  }
}
