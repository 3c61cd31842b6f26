// A field for every setting that the box's schema describes; what it means is the box's business.

import { element, write } from "./dom.js";
import { title } from "./format.js";
import { RequestError } from "./requests.js";

const ELSEWHERE = ["raw_view"]; // It has a switch at the picture, and asks first.

/** What a property may be, references and "or nothing" resolved. */
function resolve(property, schema) {
  const choices = property.anyOf ?? [property];
  const [kind] = choices.filter(({ type }) => type !== "null");
  const target = kind.$ref?.split("/").slice(1).reduce((at, name) => at[name], schema) ?? kind;
  return { ...target, ...property, optional: choices.some(({ type }) => type === "null") };
}

function select(kind) {
  const control = element("select");
  for (const name of kind.enum) control.append(new Option(name, name));
  return control;
}

function input(kind) {
  const control = element("input");
  if (kind.type === "boolean") {
    control.type = "checkbox";
    control.setAttribute("role", "switch");
    return control;
  }
  if (kind.type === "string") return control;
  control.type = "number";
  control.step = kind.type === "integer" ? "1" : "any";
  for (const [bound, names] of [
    ["min", ["minimum", "exclusiveMinimum"]],
    ["max", ["maximum", "exclusiveMaximum"]],
  ]) {
    const limit = names.map((name) => kind[name]).find((value) => value !== undefined);
    if (limit !== undefined) control[bound] = limit;
  }
  if (kind.optional) control.placeholder = "not set";
  return control;
}

class Field {
  constructor(key, kind, onChange) {
    Object.assign(this, { key, kind });
    this.control = kind.enum ? select(kind) : input(kind);
    const control = this.control;
    control.id = `setting-${key}`;
    control.name = key;
    const label = element("label", "", kind.title ?? key);
    label.htmlFor = control.id;
    const text = element("p", "quiet", kind.description ?? "");
    text.id = `${control.id}-text`;
    this.error = element("p", "error");
    this.error.setAttribute("role", "alert");
    control.setAttribute("aria-describedby", text.id);
    const entry = element("div", kind.type === "boolean" ? "entry switch" : "entry");
    entry.append(control);
    if (kind.unit) entry.append(element("span", "quiet", kind.unit));
    this.root = element("div", "field");
    this.root.append(label, entry, text, this.error);
    control.addEventListener("change", () => onChange(this));
  }

  /** What was put in; undefined where it is no number. */
  get value() {
    const { kind, control } = this;
    if (kind.type === "boolean") return control.checked;
    if (kind.enum || kind.type === "string") return control.value;
    if (control.value === "" && control.validity.valid) return kind.optional ? null : undefined;
    return Number.isFinite(control.valueAsNumber) ? control.valueAsNumber : undefined;
  }

  show(value) {
    this.control.disabled = false;
    this.shown = value;
    if (this.kind.type === "boolean") this.control.checked = value;
    else this.control.value = value ?? "";
  }
}

export class SettingsForm {
  constructor(form, status, settings) {
    Object.assign(this, { form, status, settings });
    this.fields = [];
    this.drawn = "";
    settings.listen(
      (answer) => this.show(answer),
      () => this.fields.forEach(({ control }) => (control.disabled = true)),
    );
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  show({ schema, values }) {
    const news = JSON.stringify(schema);
    if (news !== this.drawn) {
      this.drawn = news;
      this.draw(schema);
    }
    for (const field of this.fields) {
      // Nothing is taken from under the hands of who is typing.
      if (document.activeElement === field.control && field.control.type === "number") continue;
      field.show(values[field.key]);
    }
  }

  draw(schema) {
    this.fields = Object.entries(schema.properties)
      .filter(([key]) => !ELSEWHERE.includes(key))
      .map(([key, property]) => [key, resolve(property, schema)])
      .filter(([, { enum: names, type }]) => names || !["object", "array"].includes(type))
      .map(([key, kind]) => new Field(key, kind, (field) => this.change(field)));
    // `smoothing.tau_s` stands with the others of smoothing.
    const groups = Map.groupBy(this.fields, ({ key }) => key.split(".").slice(0, -1).join("."));
    this.form.replaceChildren(
      ...[...groups].map(([name, fields]) => {
        const group = element("fieldset");
        if (name) group.append(element("legend", "", title(name)));
        group.append(...fields.map(({ root }) => root));
        return group;
      }),
    );
  }

  async change(field) {
    const { value } = field;
    write(field.error, "");
    write(this.status, "");
    if (value === undefined) {
      write(field.error, "This must be a number.");
      return;
    }
    try {
      await this.settings.set({ [field.key]: value });
      write(this.status, `${field.kind.title ?? field.key}: changed.`);
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      field.show(field.shown);
      write(field.error, `Not changed: ${error.message}`);
    }
  }
}
