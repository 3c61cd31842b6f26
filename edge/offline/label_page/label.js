// The page of `fer-edge label`. What is marked is sent at once; the program has the last word.

const at = (id) => document.getElementById(id);
const picture = at("picture");

const clip = await (await fetch("clip")).json();
let segments = clip.segments;
let begun = null; // {label, frame}
let frame = 0;
let playing = null; // {frame, time} where playing began
let loading = false;
let saving = Promise.resolve();

const seconds = (number) => Math.round((1000 * number) / clip.fps) / 1000;
const isHere = (one) => one.start_s <= seconds(frame) && seconds(frame) < one.end_s;

function draw() {
  at("time").textContent = `${seconds(frame).toFixed(2)} of ${clip.length_s.toFixed(2)} s`;
  at("position").value = frame;
  at("position").setAttribute("aria-valuetext", at("time").textContent);
  at("play").textContent = playing ? "Pause" : "Play";
  at("cursor").style.left = `${(100 * frame) / clip.frames}%`;
  at("state").textContent = begun
    ? `${begun.label} since ${seconds(begun.frame).toFixed(2)} s`
    : segments.filter(isHere).map((one) => `${one.label} here`).join("");
  for (const button of at("expressions").children) {
    button.setAttribute("aria-pressed", String(begun?.label === button.dataset.label));
  }
  const stretch = document.querySelector("#timeline .begun");
  stretch.hidden = !begun;
  if (begun) place(stretch, seconds(Math.min(begun.frame, frame)), seconds(Math.max(begun.frame, frame)));
}

function place(element, from, to) {
  element.style.left = `${(100 * from) / clip.length_s}%`;
  element.style.width = `${(100 * (to - from)) / clip.length_s}%`;
}

function drawSegments() {
  document.querySelectorAll("#timeline .segment").forEach((old) => old.remove());
  at("segments").replaceChildren(
    ...segments.map((one) => {
      const bar = document.createElement("div");
      bar.className = "segment";
      place(bar, one.start_s, one.end_s);
      at("timeline").append(bar);
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "Remove";
      const text = `${one.label} ${one.start_s.toFixed(2)}–${one.end_s.toFixed(2)} s`;
      remove.setAttribute("aria-label", `Remove ${text}`);
      remove.addEventListener("click", () => save((all) => all.filter((other) => other !== one)));
      const item = document.createElement("li");
      item.append(text, remove);
      return item;
    }),
  );
  draw();
}

// One after the other: each change is made to what the one before left.
function save(change) {
  saving = saving.then(() => send(change(segments)));
}

async function send(wanted) {
  at("problem").textContent = "";
  let answer;
  try {
    const response = await fetch("labels", {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ segments: wanted }),
    });
    answer = await response.json();
  } catch {
    answer = { error: "fer-edge label does not answer; start it again" };
  }
  if (answer.error) {
    at("problem").textContent = `Not saved: ${answer.error}`;
  } else {
    segments = answer.segments;
    at("saved").textContent = `Saved: ${segments.length} labelled`;
  }
  drawSegments();
}

function finish(endFrame) {
  const { label, frame: start } = begun;
  begun = null;
  const marked = { start_s: seconds(start), end_s: seconds(endFrame), label };
  save((all) => [...all, marked]);
}

function press(label) {
  const other = begun?.label !== label;
  if (begun) finish(frame);
  if (other) begun = { label, frame };
  draw();
}

function show(number) {
  frame = Math.max(0, Math.min(clip.frames - 1, number));
  if (!loading) load();
  draw();
}

function load() {
  const wanted = frame;
  const done = () => {
    loading = false;
    if (frame !== wanted) load();
  };
  loading = true;
  picture.onload = picture.onerror = done;
  picture.src = `frame/${wanted}.jpg`;
}

function play(wanted) {
  playing = wanted ? { frame: frame === clip.frames - 1 ? 0 : frame, time: performance.now() } : null;
  if (playing) requestAnimationFrame(step);
  draw();
}

function step(now) {
  if (!playing) return;
  const next = playing.frame + Math.floor(((now - playing.time) / 1000) * clip.fps);
  show(next);
  if (next < clip.frames - 1) {
    requestAnimationFrame(step);
    return;
  }
  play(false);
  if (begun) finish(clip.frames);
}

function go(number) {
  play(false);
  show(number);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const far = event.shiftKey ? Math.round(clip.fps) : 1;
  const digit = Number(event.key);
  const onButton = event.target instanceof HTMLButtonElement;
  if (digit >= 1 && digit <= clip.expressions.length) press(clip.expressions[digit - 1]);
  else if (event.key === " " && !onButton) play(!playing);
  else if (event.key === "ArrowLeft") go(frame - far);
  else if (event.key === "ArrowRight") go(frame + far);
  else if (event.key === "Home") go(0);
  else if (event.key === "End") go(clip.frames - 1);
  else if (event.key === "Escape") {
    begun = null;
    at("problem").textContent = "";
    draw();
  } else if (event.key === "Delete" || event.key === "Backspace") {
    const here = segments.find(isHere);
    save((all) => all.filter((one) => one !== here));
  } else return;
  event.preventDefault();
});

at("name").textContent = clip.name;
at("position").max = clip.frames - 1;
at("position").addEventListener("input", (event) => go(Number(event.target.value)));
at("play").addEventListener("click", () => play(!playing));
at("expressions").append(
  ...clip.expressions.map((label, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.label = label;
    button.textContent = `${number + 1} ${label}`;
    button.addEventListener("click", () => press(label));
    return button;
  }),
);
const stretch = document.createElement("div");
stretch.className = "begun";
at("timeline").append(stretch);
drawSegments();
show(0);
