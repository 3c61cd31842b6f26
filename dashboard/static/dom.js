// Making and changing elements.

/** An element with a class and, if given, text; texts are never read as HTML. */
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Writes only what changed, so that a reader's place and a selection survive. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A table row of cells; the first is the row's heading. Cells are texts or elements. */
export function row(...cells) {
  const made = document.createElement("tr");
  cells.forEach((cell, i) => {
    const node = document.createElement(i === 0 ? "th" : "td");
    if (i === 0) node.scope = "row";
    node.append(cell);
    made.append(node);
  });
  return made;
}
