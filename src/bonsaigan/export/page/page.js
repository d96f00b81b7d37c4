import { latentOf, slerp } from "./latent.js";

const SEEDS = 2 ** 32, WALL = 24, WALL_BATCH = 4, WALK_STEPS = 60, FRAME_MS = 40;
const element = (id) => document.getElementById(id);
const state = { seed: 0, shifts: [], walking: false, milliseconds: 0 };
let facts, directions;

async function load() {
  const answer = await fetch("page.json").catch(() => null);
  facts = answer?.ok ? await answer.json().catch(() => null) : null;
  if (!facts) throw new Error("page.json could not be fetched, or is not what it should be");
  directions = facts.directions.vectors.map((values) => Float32Array.from(values));
  state.shifts = directions.map(() => 0);
}

// --- drawing, in the worker -------------------------------------------------------------------------------

const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map();
let calls = 0;
worker.onmessage = ({ data }) => {
  const { resolve, reject } = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data);
};
worker.onerror = () => say("This browser could not start the worker that draws.");
const ask = (message) => new Promise((resolve, reject) => {
  waiting.set(++calls, { resolve, reject });
  worker.postMessage({ id: calls, ...message });
});

/** RGBA pixels of latent vectors, an array of Float32Array. */
export async function draw(vectors) {
  const latents = new Float32Array(vectors.length * facts.latent);
  vectors.forEach((vector, i) => latents.set(vector, i * facts.latent));
  const { pixels, milliseconds } = await ask({ latents });
  state.milliseconds = milliseconds;
  return pixels;
}

/** RGBA pixels of seeds. */
export const drawSeeds = (seeds) => draw(seeds.map((seed) => latentOf(seed, facts.latent)));

function show(canvas, pixels, index = 0) {
  const size = facts.width * facts.height * 4;
  const part = pixels.subarray(index * size, (index + 1) * size);
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(part, facts.width, facts.height), 0, 0);
}

// --- one picture ------------------------------------------------------------------------------------------

const lengthOf = (z) => Math.sqrt(z.reduce((sum, value) => sum + value * value, 0));

// Along the directions, keeping the length, as the package's own `Directions.move` does.
function shifted(z) {
  if (state.shifts.every((shift) => shift === 0)) return z;
  const length = lengthOf(z), moved = z.slice();
  directions.forEach((direction, k) => {
    const far = state.shifts[k] * facts.directions.step * length;
    direction.forEach((value, i) => { moved[i] += far * value; });
  });
  const scale = length / lengthOf(moved);
  return moved.map((value) => value * scale);
}

// The latent vector that is shown, but for the sliders: a seed's, or one on the way to another seed's.
function here() {
  const from = latentOf(state.seed, facts.latent);
  return state.between ? slerp(from, latentOf(state.between.target, facts.latent), state.between.share) : from;
}

let busy = false, wanted = null;
// Only the newest wish counts: a slider moves faster than pictures are drawn.
async function present() {
  wanted = here();
  if (busy) return;
  busy = true;
  try {
    while (wanted) {
      const next = wanted;
      wanted = null;
      show(element("picture"), await draw([shifted(next)]));
    }
    describe();
  } catch (error) {
    say(`Not drawn: ${error.message}`);
  } finally {
    busy = false;
  }
}

function describe() {
  const moved = state.shifts.some(Boolean) ? ", moved" : "";
  const what = state.between ? `Between seeds ${state.seed} and ${state.between.target}` : `Seed ${state.seed}`;
  const time = state.milliseconds < 10 ? state.milliseconds.toFixed(1) : state.milliseconds.toFixed(0);
  say(`${what}${moved} · drawn in ${time} ms`);
  element("picture").setAttribute("aria-label", `The picture: ${what.toLowerCase()}${moved}`);
}

function choose(seed) {
  state.seed = ((seed % SEEDS) + SEEDS) % SEEDS;
  state.between = null;
  element("seed").value = state.seed;
  remember();
  if (!state.walking) announce(`Seed ${state.seed}`);
  return present();
}

let later = 0;
function remember() {
  const query = new URLSearchParams({ seed: state.seed });
  if (state.between) query.set("to", [state.between.target, state.between.share.toFixed(4)]);
  if (state.shifts.some(Boolean)) query.set("shift", state.shifts.join(","));
  clearTimeout(later);
  try {
    history.replaceState(null, "", `?${query}`);
  } catch { // Safari refuses more than 100 changes in 30 seconds, Firefox more than 200 in 10
    later = setTimeout(remember, 1000);
  }
}

const randomSeed = () => Math.floor(Math.random() * 1e6);
const say = (text) => { element("status").textContent = text; };
// For screen readers, which are not to read every frame of a walk and every place of a slider.
const announce = (text) => { element("said").textContent = text; };

async function walk() {
  state.walking = !state.walking;
  element("walk").setAttribute("aria-pressed", state.walking);
  const mine = (state.round = (state.round ?? 0) + 1);
  const going = () => state.walking && state.round === mine;
  if (!state.walking) remember();
  while (going()) {
    const { target, share } = state.between ?? { target: randomSeed(), share: 0 };
    for (let step = Math.round(share * WALK_STEPS) + 1; step <= WALK_STEPS && going(); step++) {
      const began = performance.now();
      state.between = { target, share: step / WALK_STEPS };
      await present();
      const left = FRAME_MS - (performance.now() - began);
      await new Promise((done) => setTimeout(done, Math.max(0, left)));
    }
    if (going()) await choose(target);
  }
}

function stop() {
  if (state.walking) walk();
}

async function download() {
  const canvas = element("picture");
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  const named = (seed) => String(seed).padStart(6, "0");
  const way = state.between ? `-to-${named(state.between.target)}-${Math.round(100 * state.between.share)}` : "";
  link.download = `seed${named(state.seed)}${way}${state.shifts.some(Boolean) ? "-moved" : ""}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- the wall ---------------------------------------------------------------------------------------------

let wallRound = 0;
async function fillWall() {
  const mine = ++wallRound;
  const seeds = Array.from({ length: WALL }, randomSeed);
  const places = [...element("wall").children];
  for (let start = 0; start < WALL && mine === wallRound; start += WALL_BATCH) {
    const part = seeds.slice(start, start + WALL_BATCH);
    const pixels = await drawSeeds(part);
    part.forEach((seed, i) => {
      const place = places[start + i];
      show(place.firstChild, pixels, i);
      place.setAttribute("aria-label", `Seed ${seed}`);
      place.onclick = () => { stop(); clearShifts(); choose(seed); };
      place.disabled = false;
    });
  }
}

// --- the page ---------------------------------------------------------------------------------------------

function clearShifts() {
  state.shifts.fill(0);
  showShifts();
}

function showShifts() {
  [...element("sliders").children].forEach((label, k) => {
    label.querySelector("input").value = state.shifts[k];
    label.querySelector("output").textContent = state.shifts[k].toFixed(1);
  });
}

function make(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function build() {
  document.title = facts.title;
  element("title").textContent = facts.title;
  for (const canvas of [element("picture"), ...Array.from({ length: WALL }, () => document.createElement("canvas"))]) {
    canvas.width = facts.width;
    canvas.height = facts.height;
    if (!canvas.id) element("wall").append(make("button", { disabled: true, ariaLabel: "Not drawn yet" }, canvas));
  }
  facts.directions.names.forEach((name, k) => {
    const slider = make("input", { type: "range", min: -4, max: 4, step: 0.1, value: 0, ariaLabel: name });
    slider.oninput = () => {
      state.shifts[k] = Number(slider.value);
      showShifts();
      remember();
      if (!state.walking) present();
    };
    element("sliders").append(make("label", {}, make("span", { textContent: name }), slider, make("output")));
  });
  element("directions").hidden = directions.length === 0;
  const { host } = new URL(facts.runtime.script.url, location.href);
  if (host !== location.host) element("about").append(
    make("dt", { textContent: "Fetched from elsewhere" }),
    make("dd", { textContent: `the program that runs the network, from ${host}; it learns that this page was opened` }));
  for (const [name, value] of facts.about)
    element("about").append(make("dt", { textContent: name }), make("dd", { textContent: value }));
}

const actions = {
  fresh: () => { stop(); clearShifts(); choose(randomSeed()); },
  walk,
  download,
  others: fillWall,
  reset: () => { clearShifts(); remember(); if (!state.walking) present(); },
};
const keys = {
  n: actions.fresh, w: walk, d: download, o: fillWall, r: actions.reset,
  ArrowRight: () => { stop(); choose(state.seed + 1); },
  ArrowLeft: () => { stop(); choose(state.seed - 1); },
};

function listen() {
  for (const [id, action] of Object.entries(actions)) {
    element(id).onclick = action;
    element(id).disabled = false;
  }
  element("seed").onchange = ({ target }) => { stop(); choose(Math.floor(Math.abs(Number(target.value))) || 0); };
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });
}

/** Whether this browser draws what the trained generator drew when the page was made, in grey levels. */
async function check() {
  const drawn = await drawSeeds([facts.check.seed]);
  const expected = Uint8Array.from(atob(facts.check.pixels), (c) => c.charCodeAt(0));
  let largest = 0;
  expected.forEach((value, i) => { largest = Math.max(largest, Math.abs(value - drawn[i])); });
  element("about").append(
    make("dt", { textContent: "Checked here" }),
    make("dd", { id: "check", textContent: largest <= facts.check.tolerance
      ? `this browser draws what the trained generator drew, to ${largest} of 255 grey levels`
      : `this browser draws pictures that differ by ${largest} grey levels` }));
}

function recall() {
  const query = new URLSearchParams(location.search);
  (query.get("shift") ?? "").split(",").slice(0, directions.length).forEach((text, k) => {
    state.shifts[k] = Math.min(4, Math.max(-4, Number(text) || 0));
  });
  showShifts();
  const isSeed = (number) => Number.isInteger(number) && number >= 0 && number < SEEDS;
  const seed = Number(query.get("seed") ?? randomSeed());
  const [target, share] = (query.get("to") ?? "").split(",").map(Number);
  return { seed: isSeed(seed) ? seed : 0, between: isSeed(target) && share > 0 && share <= 1 ? { target, share } : null };
}

try {
  await load();
  build();
  const { seed, between } = recall();
  await ask({ load: { ...facts, directions: undefined, check: undefined } });
  await choose(seed);
  if (between) await present(state.between = between), remember();
  listen();
  document.body.dataset.ready = "";
  await fillWall();
  await check();
  document.body.dataset.done = "";
} catch (error) {
  say(`Not drawn: ${error.message}`);
  announce(element("status").textContent);
}
