// The session logs that may be downloaded.

import { element, row, write } from "./dom.js";
import { moment, size } from "./format.js";
import { request, RequestError } from "./requests.js";

function link(name) {
  const made = element("a", "", name);
  made.href = `/api/sessions/${encodeURIComponent(name)}`;
  made.download = name;
  return made;
}

export class Sessions {
  constructor(body, note) {
    Object.assign(this, { body, note });
    this.drawn = "";
  }

  async refresh() {
    let answer;
    try {
      answer = await request("/api/sessions");
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      write(this.note, error.message);
      return;
    }
    const { files, total, written } = answer;
    this.body.parentElement.hidden = files.length === 0;
    if (files.length < total) write(this.note, `The newest ${files.length} of ${total} files.`);
    else if (files.length === 0) write(this.note, written ? "None yet." : "This box writes none.");
    else write(this.note, "");
    const news = JSON.stringify(files);
    if (news === this.drawn) return;
    this.drawn = news;
    this.body.replaceChildren(
      ...files.map(({ name, bytes, changed_utc: changed }) =>
        row(link(name), moment(changed), size(bytes)),
      ),
    );
  }
}
