// For how long each expression was shown over the last hour, minute by minute.

import { svg } from "./chart.js";
import { row } from "./dom.js";
import { duration, percent, title } from "./format.js";
import { request, RequestError } from "./requests.js";

const HEIGHT = 20;

/** A bar for each minute of the hour, the one that runs at the right. */
function course(minutes, span, label, most) {
  const bars = svg("svg", {
    class: "course",
    viewBox: `0 0 ${span} ${HEIGHT}`,
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  for (const { age_min: age, seconds } of minutes) {
    const height = ((seconds[label] ?? 0) / most) * HEIGHT;
    if (height === 0) continue;
    bars.append(
      svg("rect", { x: span - 1 - age + 0.1, y: HEIGHT - height, width: 0.8, height }),
    );
  }
  return bars;
}

export class Hour {
  constructor(body, empty, expressions) {
    Object.assign(this, { body, empty });
    this.labels = [...expressions, "uncertain", "low_quality"];
  }

  async refresh() {
    let answer;
    try {
      answer = await request("/api/hour");
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      return; // What is shown stays; the header says that nobody answers.
    }
    const { minutes, span_min: span } = answer;
    const sums = this.labels.map((label) =>
      minutes.reduce((sum, { seconds }) => sum + (seconds[label] ?? 0), 0),
    );
    const all = sums.reduce((sum, seconds) => sum + seconds, 0);
    const most = Math.max(1, ...minutes.flatMap(({ seconds }) => Object.values(seconds)));
    this.empty.hidden = all > 0;
    this.body.parentElement.hidden = all === 0;
    this.body.replaceChildren(
      ...this.labels.map((label, i) => {
        const line = row(
          title(label),
          duration(sums[i]),
          all > 0 ? percent(sums[i] / all) : "–",
          course(minutes, span, label, most),
        );
        line.dataset.label = label;
        line.querySelectorAll("td")[0].className = "number";
        line.querySelectorAll("td")[1].className = "number";
        return line;
      }),
    );
  }
}
