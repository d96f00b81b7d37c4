// What the page shows is in its address, after the #: it never goes to the server, and a link holds it all.

const DEFAULTS = { tab: "pictures", from: "0", variety: "1", moment: "", open: "", film: "" };
const watchers = [];

export const state = {};
export const run = { moments: {}, favourites: [] };

export const byId = (id) => document.getElementById(id);

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [key, usual] of Object.entries(DEFAULTS)) state[key] = given.get(key) ?? usual;
}

export function address(changes = {}) {
  const wanted = { ...state, ...changes };
  const parts = Object.keys(DEFAULTS)
    .filter((key) => wanted[key] !== DEFAULTS[key])
    .map((key) => `${key}=${encodeURIComponent(wanted[key])}`);
  return `${location.pathname}#${parts.join("&")}`;
}

let later = 0;
function write(how) {
  clearTimeout(later);
  try {
    history[how](null, "", address());
  } catch { // Safari refuses more than 100 changes in 30 seconds, Firefox more than 200 in 10
    later = setTimeout(write, 1000, "replaceState");
  }
}

export function set(changes, { replace = false } = {}) {
  const before = { ...state };
  for (const [key, value] of Object.entries(changes)) state[key] = String(value);
  if (Object.keys(changes).every((key) => before[key] === state[key])) return;
  write(replace ? "replaceState" : "pushState");
  tell(before);
}

export function watch(watcher) {
  watchers.push(watcher);
}

export function tell(before = {}) {
  const changed = (key) => before[key] !== state[key];
  watchers.forEach((watcher) => watcher(changed));
}

window.addEventListener("popstate", () => {
  const before = { ...state };
  read();
  tell(before);
});
read();

// --- asking the server ------------------------------------------------------------------------------------

export function moment() {
  return state.moment in run.moments ? state.moment : Object.keys(run.moments)[0] ?? "best";
}

export function momentName(name) {
  const step = run.moments[name]?.step;
  return step ? `${name}, step ${step.toLocaleString("en")}` : name;
}

export function stamp() {
  return run.moments[moment()]?.stamp ?? "0";
}

export function asked(more = {}) {
  return new URLSearchParams({ moment: moment(), variety: state.variety, v: stamp(), ...more });
}

export function pictureUrl(point, more = {}) {
  return `/picture/${encodeURIComponent(point)}.png?${asked(more)}`;
}

export async function ask(path, options) {
  const answer = await fetch(path, options);
  const told = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(told.error ?? answer.statusText);
  return told;
}

export async function frozen(point) {
  return (await ask(`/api/freeze/${encodeURIComponent(point)}?${asked()}`)).point;
}

let toastTimer = 0;
export function toast(text) {
  const element = byId("toast");
  element.textContent = text;
  // Shown anew, it stands above a dialog that was opened since.
  element.hidePopover();
  element.showPopover();
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.hidePopover(), 4000);
}

// --- names of pictures (studio/points.py) -----------------------------------------------------------------

export function parse(text) {
  const blend = text.match(/^([^*~]+)\*([^*~]+)\*([\d.]+)$/);
  if (blend) return { kind: "blend", first: blend[1], second: blend[2], share: Number(blend[3]) };
  const mix = text.match(/^([^*~]+)~([^*~]+)$/);
  if (mix) return { kind: "mix", first: mix[1], second: mix[2] };
  const [base, ...moves] = text.split("!");
  const amounts = new Map(moves.map((move) => move.split(":").map(Number)));
  return { kind: "place", base, amounts, seed: /^\d+$/.test(base) ? Number(base) : null };
}

export function placeName(base, amounts) {
  const moves = [...amounts].filter(([, amount]) => amount !== 0).sort((a, b) => a[0] - b[0]);
  return base + moves.map(([which, amount]) => `!${which}:${Number(amount.toFixed(2))}`).join("");
}

export function title(text) {
  const point = parse(text);
  if (point.kind === "blend") return `${title(point.first)} to ${title(point.second)}`;
  if (point.kind === "mix") return `${title(point.first)} in the style of ${title(point.second)}`;
  return (point.seed === null ? "found picture" : `seed ${point.base}`) + (point.amounts.size ? ", moved" : "");
}

// --- favourites -------------------------------------------------------------------------------------------

export const isFavourite = (point) => run.favourites.includes(point);

let saving = Promise.resolve();
let unanswered = 0;
let known = []; // what the server has said
export function keep({ add = [], drop = [] }) {
  if (!unanswered) known = run.favourites;
  unanswered += 1;
  const others = run.favourites.filter((point) => !drop.includes(point) && !add.includes(point));
  run.favourites = [...others, ...add]; // at once, for the next wish may come before the answer
  tell(state);
  const body = JSON.stringify({ add, drop });
  const request = { method: "PATCH", headers: { "content-type": "application/json" }, body };
  saving = saving
    .then(() => ask("/api/favourites", request))
    .then((points) => (known = points), (error) => toast(error.message))
    .then(() => {
      unanswered -= 1;
      if (!unanswered) takeUp(known);
    });
  return saving;
}

function takeUp(points) {
  if (points.join() === run.favourites.join()) return;
  run.favourites = points;
  tell(state);
}

export function toggleFavourite(point) {
  return keep(isFavourite(point) ? { drop: [point] } : { add: [point] });
}

document.addEventListener("visibilitychange", async () => { // another page may have changed them
  if (document.hidden || unanswered) return;
  const points = await ask("/api/favourites").catch(() => run.favourites);
  if (!unanswered) takeUp(points);
});
