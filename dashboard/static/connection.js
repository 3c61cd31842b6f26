// The stream of events from the server, kept open; and what that means for the person at the page.

const RETRY_MS = 2000;
const SERVER_SILENT_MS = 5000; // The server speaks at least once a second.
const BOX_SILENT_S = 3;

/**
 * Keeps an EventSource open while the page is visible.
 *
 * Calls `onUpdate(update)` for telemetry, `onOpen()` each time a stream begins, and `onChange()`
 * when `status()` may have changed.
 */
export class Connection {
  constructor({ onUpdate, onOpen, onChange }) {
    this.onUpdate = onUpdate;
    this.onOpen = onOpen;
    this.onChange = onChange;
    this.open = false;
    this.heardAt = performance.now();
    this.updatedAt = null; // When the box last spoke, on this page's clock.
    this.everAnswered = false;
    this.full = false; // All places for streams are taken, by other viewers.
    this.camera = null;
    this.source = null;
    document.addEventListener("visibilitychange", () => this.follow());
    setInterval(() => this.check(), 1000);
    this.follow();
  }

  /** A hidden page gives its stream back: they are few. */
  follow() {
    if (document.hidden) this.disconnect();
    else if (this.source === null) this.connect();
  }

  connect() {
    clearTimeout(this.retry);
    this.heardAt = performance.now();
    const source = new EventSource("/events");
    this.source = source;
    source.onopen = () => {
      this.open = true;
      this.everAnswered = true;
      this.full = false;
      this.heardAt = performance.now();
      this.onOpen();
      this.onChange();
    };
    source.onerror = () => {
      this.open = false;
      // A browser gives up for good after an answer that is no stream: ask again ourselves.
      if (source.readyState === EventSource.CLOSED) this.reconnectLater();
      this.onChange();
    };
    source.addEventListener("update", (event) => {
      const update = JSON.parse(event.data);
      this.heardAt = this.updatedAt = performance.now();
      this.camera = update.kpi.camera;
      this.onUpdate(update);
      this.onChange();
    });
    source.addEventListener("silence", (event) => {
      const { age_s: age } = JSON.parse(event.data);
      this.heardAt = performance.now();
      this.updatedAt = age === null ? null : this.heardAt - age * 1000;
      this.onChange();
    });
  }

  disconnect() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
    this.open = false;
  }

  reconnectLater() {
    this.disconnect();
    this.retry = setTimeout(async () => {
      // Says by its status whether a log-in is needed, which an EventSource cannot.
      const answer = await fetch("/api/state", { cache: "no-store" }).catch(() => null);
      if (answer?.status === 401) {
        location.assign("/login");
        return;
      }
      const { streams } = (await answer?.json().catch(() => null)) ?? {};
      this.full = streams !== undefined && streams.active >= streams.limit;
      this.follow();
      this.onChange();
    }, RETRY_MS);
  }

  check() {
    if (this.source !== null && performance.now() - this.heardAt > SERVER_SILENT_MS) {
      this.reconnectLater();
    }
    this.onChange();
  }

  /** `{state, text}`; the state is one of connecting, reconnecting, silent, camera, live. */
  status() {
    if (!this.open) {
      if (this.full) {
        return { state: "reconnecting", text: "Too many viewers; waiting for one to leave" };
      }
      return this.everAnswered
        ? { state: "reconnecting", text: "Reconnecting…" }
        : { state: "connecting", text: "Connecting…" };
    }
    if (this.updatedAt === null) return { state: "silent", text: "No data from the box yet" };
    const age = (performance.now() - this.updatedAt) / 1000;
    if (age > BOX_SILENT_S) {
      return { state: "silent", text: `No data from the box for ${Math.floor(age)} s` };
    }
    if (this.camera !== "live") return { state: "camera", text: `Camera ${this.camera}` };
    return { state: "live", text: "Live" };
  }
}
