// A card for each face in view.

import { duration, percent, title } from "./format.js";

const LINGER_MS = 1500; // A face missed for a moment does not make its card jump.

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Writes only what changed, so that a reader's place and a selection survive. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

class Card {
  constructor(track, expressions) {
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
    this.root.append(this.name, this.held, this.label, this.confidence, bars);
  }

  show(face, expressions, now) {
    this.seenAt = now;
    const uncertain = face.label === "uncertain";
    this.root.classList.toggle("uncertain", uncertain);
    this.root.classList.remove("gone");
    write(this.label, title(face.label));
    write(this.confidence, (uncertain ? `${title(face.top)}? ` : "") + percent(face.confidence));
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
  constructor(list, count, nobody, expressions) {
    Object.assign(this, { list, count, nobody, expressions });
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
    const card = new Card(track, this.expressions);
    const after = [...this.cards.values()].find((other) => other.track > track);
    this.list.insertBefore(card.root, after ? after.root : null);
    this.cards.set(track, card);
    this.cards = new Map([...this.cards].sort(([a], [b]) => a - b));
  }
}
