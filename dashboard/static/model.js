// The bundle in use: what it is, how well it did where it was measured, and its card.

import { element, row } from "./dom.js";
import { withUnit } from "./format.js";
import { markdown } from "./markdown.js";
import { request, RequestError } from "./requests.js";

const share = (value) => (typeof value === "number" ? value.toFixed(3) : "–");

function facts(model) {
  return [
    ["Name", model.name],
    ["Hash", model.sha256.slice(0, 12)],
    ["Runs as", `${model.precision} on ${model.backend}`],
    ["A face takes", withUnit(model.latency_ms, "ms")],
    ["Trained in", `${model.provenance.phase}, seed ${model.provenance.seed}`],
  ];
}

export class Model {
  constructor(facts, figures, card) {
    Object.assign(this, { facts, figures, card });
    this.shown = "";
  }

  async refresh() {
    let model;
    try {
      model = await request("/api/model");
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      return; // It is asked again; the header says that nobody answers.
    }
    if (model.sha256 === undefined || JSON.stringify(model) === this.shown) return;
    this.shown = JSON.stringify(model);
    this.facts.replaceChildren(
      ...facts(model).map(([name, value]) => {
        const pair = element("div", "pair");
        pair.append(element("dt", "", name), element("dd", "", value));
        return pair;
      }),
    );
    this.figures.replaceChildren(
      ...Object.entries(model.metrics).map(([name, figure]) =>
        row(
          [figure.split ?? name, figure.protocol, figure.precision].filter(Boolean).join(", "),
          String(figure.n ?? "–"),
          share(figure.accuracy),
          share(figure.macro_f1),
          share(figure.ece),
        ),
      ),
    );
    this.figures.parentElement.hidden = Object.keys(model.metrics).length === 0;
    this.card.replaceChildren(...markdown(model.card, 3));
    this.card.parentElement.hidden = model.card === "";
  }
}
