// A card for each face in view.

import { element, write } from "./dom.js";
import { duration, percent, title } from "./format.js";

const LINGER_MS = 1500; // A face missed for a moment does not make its card jump.

class Card {
  constructor(track, expressions, onWrong) {
    this.track = track;
    this.root = element("li", "card");
    this.root.dataset.track = track;
    this.name = element("h3", "name", `Person ${track}`);
    this.held = element("p", "held");
    this.label = element("p", "label");
    this.confidence = element("p", "confidence");
    const bars = element("ul", "bars");
    bars.setAttribute("aria-label", "Probabilities");
    this.bars = expressions.map((expression) => {
      const row = element("li", "bar");
      row.dataset.expression = expression;
      const track = element("span", "track");
      track.setAttribute("aria-hidden", "true");
      const fill = element("span", "fill");
      const value = element("span", "value");
      track.append(fill);
      row.append(element("span", "bar-name", title(expression)), track, value);
      bars.append(row);
      return { row, fill, value };
    });
    const wrong = element("button", "wrong", "That is wrong");
    wrong.setAttribute("aria-label", `That is wrong: person ${track}`);
    wrong.addEventListener("click", () => onWrong(this.face));
    this.root.append(this.name, this.held, this.label, this.confidence, bars, wrong);
  }

  show(face, expressions, now) {
    this.seenAt = now;
    this.face = face;
    const undecided = face.label === "uncertain" || face.label === "low_quality";
    this.root.classList.toggle("uncertain", undecided);
    this.root.classList.remove("gone");
    write(this.label, title(face.label));
    write(
      this.confidence,
      face.label === "low_quality"
        ? face.quality
        : (undecided ? `${title(face.top)}? ` : "") + percent(face.confidence),
    );
    write(this.held, `for ${duration(face.held_s)}`);
    this.bars.forEach(({ row, fill, value }, i) => {
      row.classList.toggle("shown", expressions[i] === face.label);
      fill.style.transform = `translateX(${((face.smoothed[i] - 1) * 100).toFixed(1)}%)`;
      write(value, percent(face.smoothed[i]));
    });
  }
}

/** The list of people in view, in the order they came. */
export class People {
  /** `onWrong(face)` is called when somebody says that a label is wrong. */
  constructor(list, count, nobody, expressions, onWrong) {
    Object.assign(this, { list, count, nobody, expressions, onWrong });
    this.cards = new Map();
  }

  show(faces) {
    const now = performance.now();
    for (const face of faces) {
      if (!this.cards.has(face.track)) this.add(face.track);
      this.cards.get(face.track).show(face, this.expressions, now);
    }
    for (const [track, card] of this.cards) {
      if (card.seenAt === now) continue;
      card.root.classList.add("gone");
      if (now - card.seenAt > LINGER_MS) {
        card.root.remove();
        this.cards.delete(track);
      }
    }
    this.nobody.hidden = this.cards.size > 0;
    const there = faces.length;
    write(this.count, there === 0 ? "" : there === 1 ? "1 person" : `${there} people`);
  }

  add(track) {
    const card = new Card(track, this.expressions, this.onWrong);
    const after = [...this.cards.values()].find((other) => other.track > track);
    this.list.insertBefore(card.root, after ? after.root : null);
    this.cards.set(track, card);
    this.cards = new Map([...this.cards].sort(([a], [b]) => a - b));
  }
}
