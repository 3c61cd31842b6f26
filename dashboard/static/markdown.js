// The part of Markdown that model cards are written in: headings, lists, tables, paragraphs, code.

import { element } from "./dom.js";

const cells = (line) => line.replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
const isRule = (line) => /^\|[\s:|-]+\|$/.test(line);

/** Text with `code` in it; everything else is shown as it stands. */
function inline(node, text) {
  text.split("`").forEach((part, i) => {
    node.append(i % 2 === 1 ? element("code", "", part) : part);
  });
  return node;
}

function table(lines) {
  const made = element("table");
  const [head, ...rest] = lines.filter((line) => !isRule(line)).map(cells);
  const header = made.createTHead().insertRow();
  for (const text of head) {
    const cell = inline(element("th"), text);
    cell.scope = "col";
    header.append(cell);
  }
  const body = made.createTBody();
  for (const texts of rest) {
    const line = body.insertRow();
    for (const text of texts) inline(line.insertCell(), text);
  }
  return made;
}

function list(lines) {
  const made = element("ul");
  for (const line of lines) made.append(inline(element("li"), line.slice(2)));
  return made;
}

const kindOf = (line) => {
  if (line.startsWith("#")) return "heading";
  if (line.startsWith("- ")) return "list";
  if (line.startsWith("|")) return "table";
  return line.trim() === "" ? "blank" : "text";
};

/** `text` as elements; its headings begin at `level`. No part of it is read as HTML. */
export function markdown(text, level) {
  const blocks = [];
  for (const line of text.split("\n")) {
    const kind = kindOf(line);
    if (blocks.at(-1)?.kind === kind && kind !== "heading") blocks.at(-1).lines.push(line);
    else blocks.push({ kind, lines: [line] });
  }
  return blocks
    .filter(({ kind }) => kind !== "blank")
    .map(({ kind, lines }) => {
      if (kind === "list") return list(lines);
      if (kind === "table") return table(lines);
      if (kind === "text") return inline(element("p"), lines.join(" "));
      const [, marks, words] = /^(#+)\s*(.*)$/.exec(lines[0]);
      return inline(element(`h${Math.min(6, level + marks.length - 1)}`), words);
    });
}
