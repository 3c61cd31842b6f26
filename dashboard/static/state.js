// What should be so on the box, whether it is, and why not.

import { element, write } from "./dom.js";

const WORDS = { ok: "OK", worse: "Degraded", failed: "Failed" };

function stateOf({ ok, critical }) {
  if (ok) return "ok";
  return critical ? "failed" : "worse";
}

export class State {
  constructor(list, verdict) {
    Object.assign(this, { list, verdict });
    this.drawn = "";
  }

  /** What was last shown says nothing about now. */
  forget() {
    write(this.verdict, "not known now");
  }

  show({ checks }) {
    const failed = checks.find(({ ok, critical }) => critical && !ok);
    write(this.verdict, checks.length === 0 ? "" : failed ? "not ready" : "ready");
    const news = JSON.stringify(checks);
    if (news === this.drawn) return;
    this.drawn = news;
    this.list.replaceChildren(
      ...checks.map((check) => {
        const item = element("li", "check");
        item.dataset.state = stateOf(check);
        item.append(
          element("span", "check-state", WORDS[stateOf(check)]),
          element("span", "check-name", check.name),
          element("span", "check-reason", check.reason),
        );
        return item;
      }),
    );
  }
}
