// The live page: what the server sends, shown.

import { Box } from "./box.js";
import { Connection } from "./connection.js";
import { People } from "./people.js";
import { request, RequestError } from "./requests.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const expressions = document.body.dataset.expressions.split(" ");

const view = new View();
const box = new Box(byId("tiles"), byId("details"));
const people = new People(byId("people"), byId("people-count"), byId("nobody"), expressions);

function showNotes(notes) {
  const list = byId("notes");
  byId("attention").hidden = notes.length === 0;
  if ([...list.children].map((item) => item.textContent).join("\n") === notes.join("\n")) return;
  list.replaceChildren(
    ...notes.map((note) => {
      const item = document.createElement("li");
      item.textContent = note;
      return item;
    }),
  );
}

function onUpdate({ frame, kpi }) {
  byId("source").textContent = kpi.source;
  box.show(kpi);
  people.show(frame === null ? [] : frame.faces);
  showNotes(kpi.notes);
  if (frame !== null) view.shape(frame.width, frame.height);
}

async function onOpen() {
  view.restart();
  try {
    box.remember((await request("/api/history")).points);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error; // The charts begin anew instead.
  }
}

function onChange() {
  const { state, text } = connection.status();
  const before = document.body.dataset.state;
  byId("connection-text").textContent = text;
  byId("picture-note").textContent = text;
  byId("nobody").textContent = state === "live" ? "Nobody in view" : "No live picture";
  document.body.dataset.state = state;
  // Said aloud once per state, not for each second that passes in it.
  if (state !== before) byId("announcement").textContent = text;
}

const connection = new Connection({ onUpdate, onOpen, onChange });
