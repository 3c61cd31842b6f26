// "That is wrong": choosing what a label should have been. The box writes it down, without a picture.

import { element } from "./dom.js";
import { title } from "./format.js";
import { request, RequestError } from "./requests.js";

const KEPT_S = 60; // The box remembers no longer what it showed.

export class Correction {
  constructor(dialog, expressions) {
    this.dialog = dialog;
    this.heading = dialog.querySelector("h2");
    this.text = dialog.querySelector("p");
    this.error = dialog.querySelector(".error");
    this.result = document.getElementById("correction-result");
    this.choices = expressions.map((expression) => {
      const button = element("button", "", title(expression));
      button.type = "button";
      button.addEventListener("click", () => this.send(expression));
      dialog.querySelector(".choices").append(button);
      return { expression, button };
    });
  }

  /** Ask what `face` showed, as it is now: its label may change while somebody chooses. */
  ask(face) {
    this.face = face;
    this.seenAt = performance.now();
    this.heading.textContent = `What did person ${face.track} show?`;
    this.text.textContent = `Shown was: ${title(face.label)}. Your answer is kept beside the session log, without a picture.`;
    this.error.textContent = "";
    for (const { expression, button } of this.choices) button.hidden = expression === face.label;
    this.dialog.showModal();
  }

  async send(expression) {
    const { track } = this.face;
    const age = (performance.now() - this.seenAt) / 1000;
    if (age > KEPT_S) {
      this.error.textContent = "Not kept: that was more than a minute ago. Cancel, and look again.";
      return;
    }
    let shown;
    try {
      const answer = await request("/api/corrections", { track, expression, age_s: age });
      shown = answer.corrected.shown; // As the box wrote it down.
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.error.textContent = `Not kept: ${error.message}`;
      return;
    }
    this.dialog.close();
    this.result.textContent = `Noted for person ${track}: ${title(expression)}, not ${title(shown)}.`;
  }
}
