// A training, watched: how far it is, its health and curves, and the same pictures through time.

import { ask, byId, run, state, watch } from "/state.js";

const LIVE_MSEC = 3000;
const CALM_MSEC = 15000;
const GAP_PX = 2;
const STRIP_MOST = 40;
let status = { samples: [] };
let signature = "";
let cell = 0;
let timer = 0;
let atEnd = true;

export async function watchTraining(refresh) {
  let pause = CALM_MSEC;
  try {
    const told = await ask("/api/status");
    pause = told.live && !document.hidden ? LIVE_MSEC : CALM_MSEC;
    status = told;
    await refresh(told.moments);
    showStatus();
    showSamples();
    await showHealth();
  } catch {
    byId("progress-said").textContent = "The studio does not answer; is it still running?";
  }
  setTimeout(() => watchTraining(refresh), pause);
}

function showStatus() {
  const { live, share, said } = status;
  byId("dot").hidden = !live;
  byId("progress").hidden = !live;
  byId("progress").value = share ?? 0;
  const done = share === null ? "" : `, ${Math.floor(share * 100)}% of it done`;
  byId("progress-said").textContent = live ? `Training now: ${said}${done}.` : said ? `Trained: ${said}.` : "Not trained here.";
}

async function showHealth() {
  if (state.tab !== "training" || signature === status.signature) return;
  const answer = await fetch("/training");
  // The server escapes every text of the run; the page's policy forbids scripts in it besides.
  if (answer.ok) byId("health").innerHTML = await answer.text();
  signature = status.signature;
}

// --- the same inputs through time -------------------------------------------------------------------------

// With its time: another run's picture of that step may lie in the browser's store.
const sampleUrl = (place) => `/samples/${status.samples[place].step}.png?v=${status.samples[place].stamp}`;

function showSamples() {
  const last = status.samples.length - 1;
  byId("growth").hidden = last < 0;
  if (last < 0 || state.tab !== "training") return;
  const slider = byId("sample");
  if (Number(slider.max) !== last || !byId("samples").src) {
    slider.max = last;
    if (atEnd) slider.value = last;
    showSample();
    showStrip();
  }
}

function showSample() {
  const place = Number(byId("sample").value);
  const { said } = status.samples[place];
  byId("samples").src = sampleUrl(place);
  byId("sample-said").textContent = said;
  byId("sample").setAttribute("aria-valuetext", said);
  const parts = [...byId("strip").children];
  const now = parts.findLastIndex((one) => Number(one.dataset.place) <= place);
  for (const [i, one] of parts.entries()) one.classList.toggle("now", i === now);
}

function layout() {
  const image = byId("samples");
  const width = run.width + GAP_PX;
  const height = run.height + GAP_PX;
  const columns = Math.round((image.naturalWidth + GAP_PX) / width);
  const rows = Math.round((image.naturalHeight + GAP_PX) / height);
  return { columns, rows, scale: image.clientWidth / image.naturalWidth, width, height, image };
}

// At most so many of the places from 0 to count - 1, both ends among them: each is a whole grid of pictures.
function evenly(count, most) {
  const parts = Math.min(count, most);
  return Array.from({ length: parts }, (_, i) => Math.round((i * (count - 1)) / Math.max(1, parts - 1)));
}

function showStrip() {
  const { columns, rows, image } = layout();
  if (!run.width || !image.naturalWidth || !columns || !rows) return;
  cell = Math.min(cell, columns * rows - 1);
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  const figures = evenly(status.samples.length, STRIP_MOST).map((place) => {
    const { said } = status.samples[place];
    const button = document.createElement("button");
    button.type = "button";
    button.title = said;
    button.dataset.place = place;
    button.setAttribute("aria-label", said);
    button.style.aspectRatio = `${run.width} / ${run.height}`;
    button.style.backgroundImage = `url("${sampleUrl(place)}")`;
    button.style.backgroundSize = `${(image.naturalWidth / run.width) * 100}% ${(image.naturalHeight / run.height) * 100}%`;
    const x = (column * (run.width + GAP_PX)) / Math.max(1, image.naturalWidth - run.width);
    const y = (row * (run.height + GAP_PX)) / Math.max(1, image.naturalHeight - run.height);
    button.style.backgroundPosition = `${x * 100}% ${y * 100}%`;
    button.addEventListener("click", () => go(place));
    return button;
  });
  byId("grown").textContent = `Seed ${cell} through training`;
  byId("strip").replaceChildren(...figures);
  showSample();
  showRing();
}

function showRing() {
  const { columns, scale, width, height, image } = layout();
  if (!image.clientWidth) return; // its tab is hidden
  const ring = byId("ring");
  const [row, column] = [Math.floor(cell / columns), cell % columns];
  Object.assign(ring.style, {
    left: `${column * width * scale}px`, top: `${row * height * scale}px`,
    width: `${run.width * scale}px`, height: `${run.height * scale}px`,
  });
  ring.hidden = false;
}

function choose(wished) {
  const { columns, rows } = layout();
  cell = Math.max(0, Math.min(columns * rows - 1, wished));
  showStrip();
}

function go(place) {
  byId("sample").value = place;
  atEnd = place === status.samples.length - 1;
  showSample();
}

byId("samples").addEventListener("load", () => byId("strip").childElementCount || showStrip());
byId("samples").addEventListener("click", (event) => {
  const { columns, scale, width, height } = layout();
  choose(Math.floor(event.offsetY / scale / height) * columns + Math.floor(event.offsetX / scale / width));
});
byId("ring").addEventListener("keydown", (event) => {
  const { columns } = layout();
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (!by) return;
  event.preventDefault();
  choose(cell + by);
});
byId("sample").addEventListener("input", () => {
  pause();
  go(Number(byId("sample").value));
});
addEventListener("resize", () => byId("ring").hidden || showRing());

function pause() {
  clearInterval(timer);
  timer = 0;
  byId("play").textContent = "Play";
}

byId("play").addEventListener("click", () => {
  if (timer) return pause();
  const last = status.samples.length - 1;
  let place = Number(byId("sample").value) >= last ? -1 : Number(byId("sample").value);
  byId("play").textContent = "Pause";
  timer = setInterval(() => {
    go(++place);
    if (place >= last) pause();
  }, 400);
});

watch((changed) => {
  if (!changed("tab") || state.tab !== "training") return;
  showSamples();
  showHealth();
  if (byId("strip").childElementCount) showRing();
});
