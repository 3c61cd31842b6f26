// The settings of the box, as it last told them: asked for again and again, as others change them too.

import { request, RequestError } from "./requests.js";

const POLL_MS = 3000;

export class Settings {
  constructor() {
    this.listeners = [];
    this.turn = 0;
    this.changing = false;
    setInterval(() => document.hidden || this.refresh(), POLL_MS);
  }

  /** `told(answer)` gets `{schema, values, restart}`; `lost()` is called when the box did not answer. */
  listen(told, lost = () => {}) {
    this.listeners.push({ told, lost });
  }

  /** Change some; raises a `RequestError` where the box refuses. */
  set(values) {
    return this.change("/api/settings", { set: values });
  }

  /** Have the box read its profile again; gives the answer, or raises as `set`. */
  reload() {
    return this.change("/api/reload", {});
  }

  async change(path, body) {
    this.changing = true;
    this.turn += 1; // An answer still under way says how it was before.
    try {
      const answer = await request(path, body);
      this.tell(answer);
      return answer;
    } finally {
      this.changing = false;
    }
  }

  async refresh() {
    if (this.changing) return;
    const turn = ++this.turn;
    try {
      const answer = await request("/api/settings");
      if (turn === this.turn) this.tell(answer);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (!this.changing) for (const { lost } of this.listeners) lost();
    }
  }

  tell(answer) {
    for (const { told } of this.listeners) told(answer);
  }
}
