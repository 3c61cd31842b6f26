// The live page: what the server sends, shown.

import { Box } from "./box.js";
import { Connection } from "./connection.js";
import { Correction } from "./correction.js";
import { element, write } from "./dom.js";
import { Hour } from "./hour.js";
import { Model } from "./model.js";
import { People } from "./people.js";
import { request, RequestError } from "./requests.js";
import { Sessions } from "./sessions.js";
import { Settings } from "./settings.js";
import { SettingsForm } from "./settings_form.js";
import { State } from "./state.js";
import { View } from "./view.js";

const SLOW_MS = 15_000; // How often what changes slowly is asked for.

const byId = (id) => document.getElementById(id);
const expressions = document.body.dataset.expressions.split(" ");

const settings = new Settings();
const view = new View(settings);
new SettingsForm(byId("settings"), byId("settings-status"), settings);
const box = new Box(byId("tiles"), byId("details"));
const state = new State(byId("checks"), byId("verdict"));
const correction = new Correction(byId("correct"), expressions);
const people = new People(
  byId("people"),
  byId("people-count"),
  byId("nobody"),
  expressions,
  (face) => correction.ask(face),
);
const slow = [
  new Hour(byId("hour-rows"), byId("hour-empty"), expressions),
  new Sessions(byId("session-rows"), byId("sessions-note")),
  new Model(byId("model-facts"), byId("model-figures"), byId("model-card")),
];

function showNotes(notes) {
  const list = byId("notes");
  byId("attention").hidden = notes.length === 0;
  if ([...list.children].map((item) => item.textContent).join("\n") === notes.join("\n")) return;
  list.replaceChildren(...notes.map((note) => element("li", "", note)));
}

function onUpdate({ frame, kpi }) {
  write(byId("source"), kpi.source);
  byId("notice").hidden = kpi.notice === "";
  write(byId("notice-text"), kpi.notice);
  box.show(kpi);
  state.show(kpi);
  people.show(frame === null ? [] : frame.faces);
  showNotes(kpi.notes);
  if (frame !== null) view.shape(frame.width, frame.height);
}

function refreshSlow() {
  for (const part of slow) part.refresh();
}

async function onOpen() {
  view.restart();
  refreshSlow();
  try {
    box.remember((await request("/api/history")).points);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error; // The charts begin anew instead.
  }
}

function onChange() {
  const { state: now, text } = connection.status();
  const before = document.body.dataset.state;
  byId("connection-text").textContent = text;
  byId("picture-note").textContent = text;
  if (now !== "live" && now !== "camera") state.forget();
  byId("nobody").textContent = now === "live" ? "Nobody in view" : "No live picture";
  document.body.dataset.state = now;
  // Said aloud once per state, not for each second that passes in it.
  if (now !== before) byId("announcement").textContent = text;
}

byId("reload").addEventListener("click", async () => {
  const status = byId("settings-status");
  write(status, "");
  try {
    const { restart } = await settings.reload();
    write(
      status,
      restart.length === 0
        ? "The profile was read again."
        : `The profile was read again. Restart the box to use its ${restart.join(", ")}.`,
    );
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    write(status, `Not read: ${error.message}`);
  }
});

byId("logout")?.addEventListener("click", async () => {
  await request("/logout", {}).catch(() => null); // The form says what there is to say.
  location.assign("/login");
});

const connection = new Connection({ onUpdate, onOpen, onChange });
setInterval(() => document.hidden || refreshSlow(), SLOW_MS);
