// The live picture and the switch that pixelates it. What holds is always what the box answered.

import { RequestError } from "./requests.js";

const RETRY_MS = 3000;

export class View {
  constructor(settings) {
    this.settings = settings;
    for (const id of ["frame", "picture", "pixelate", "raw-banner", "confirm-raw"]) {
      this[id] = document.getElementById(id);
    }
    this.error = document.getElementById("settings-error");
    this.asked = 0;
    this.pixelate.addEventListener("change", () => this.change());
    this["confirm-raw"].addEventListener("close", () => this.confirmed());
    this.picture.addEventListener("error", () => this.retryPicture());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
    settings.listen(
      (answer) => this.show(answer),
      () => (this.pixelate.disabled = true), // Nobody there to switch anything.
    );
  }

  /** Open the picture stream anew. */
  restart() {
    this.release();
    this.asked += 1;
    this.picture.src = `/stream.mjpg?${this.asked}`;
    this.settings.refresh();
  }

  /** Give the stream back, as a hidden page does. */
  release() {
    clearTimeout(this.retry);
    this.picture.removeAttribute("src");
  }

  retryPicture() {
    if (!this.picture.hasAttribute("src")) return;
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.restart(), RETRY_MS);
  }

  /** The shape of the camera's picture, so that the page does not jump when one comes. */
  shape(width, height) {
    this.frame.style.setProperty("--ratio", (width / height).toFixed(4));
  }

  change() {
    if (this.pixelate.checked) {
      this.set(false);
      return;
    }
    this.pixelate.checked = true; // Until the box has said otherwise.
    this["confirm-raw"].returnValue = "";
    this["confirm-raw"].showModal();
  }

  confirmed() {
    if (this["confirm-raw"].returnValue === "raw") this.set(true);
    this.pixelate.focus();
  }

  async set(raw) {
    this.error.textContent = "";
    try {
      await this.settings.set({ raw_view: raw });
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      this.pixelate.checked = this["raw-banner"].hidden; // As the box last said.
      this.error.textContent = `Not changed: ${error.message}`;
    }
  }

  show({ values }) {
    const raw = values.raw_view === true;
    this.pixelate.checked = !raw;
    this.pixelate.disabled = false;
    this["raw-banner"].hidden = !raw;
    this.picture.alt = raw ? "Live camera view, faces shown" : "Live camera view, faces pixelated";
  }
}
