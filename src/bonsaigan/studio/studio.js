// The frame of the page: tabs, the wall, favourites, films, twins, keys.

import {
  ask, asked, byId, frozen, isFavourite, keep, moment, momentName, parse, pictureUrl, run, set, stamp, state, tell,
  title, toast, watch,
} from "/state.js";
import { openKeys } from "/picture.js";
import { watchTraining } from "/training.js";

const TABS = ["pictures", "favourites", "training", "report"];
const PAGE = 48;
const wall = byId("wall");
const chosen = new Set();
let kept = "";
let next = 0;

// --- tiles ------------------------------------------------------------------------------------------------

function tile(point) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tile";
  button.dataset.point = point;
  button.setAttribute("aria-label", title(point));
  button.classList.toggle("loved", isFavourite(point));
  const picture = document.createElement("img");
  picture.alt = "";
  picture.width = run.width;
  picture.height = run.height;
  picture.decoding = "async";
  picture.loading = "lazy";
  picture.src = pictureUrl(point);
  button.append(picture);
  return button;
}

function grow(count = PAGE) {
  if (!run.width) return;
  const tiles = Array.from({ length: count }, (_, i) => tile(String(next + i)));
  next += count;
  wall.append(...tiles);
}

function begin() {
  next = Math.max(0, Math.floor(Number(state.from)) || 0);
  byId("from").value = next;
  wall.replaceChildren();
  grow();
  end.unobserve(byId("more"));
  end.observe(byId("more"));
}

function redraw() {
  for (const image of document.querySelectorAll(".tile img")) image.src = pictureUrl(image.parentElement.dataset.point);
}

const end = new IntersectionObserver((entries) => {
  if (!entries.some((entry) => entry.isIntersecting) || !run.width) return;
  grow();
  // Watched anew, it is told at once where the end is still near.
  end.unobserve(byId("more"));
  end.observe(byId("more"));
}, { rootMargin: "1200px" });

wall.addEventListener("click", (event) => {
  const target = event.target.closest(".tile");
  if (target) set({ open: target.dataset.point });
});

byId("reroll").addEventListener("click", reroll);
byId("from").addEventListener("change", (event) => set({ from: event.target.value || "0" }));

function reroll() {
  set({ from: Math.floor(Math.random() * 1e6) * 16 });
  scrollTo({ top: 0 });
}

// --- favourites -------------------------------------------------------------------------------------------

function showFavourites() {
  byId("kept").textContent = run.favourites.length || "";
  for (const point of chosen) if (!isFavourite(point)) chosen.delete(point);
  for (const one of wall.children) one.classList.toggle("loved", isFavourite(one.dataset.point));
  showChoice();
  // Only what changed is made anew: a tile that has the focus keeps it.
  const now = [stamp(), state.variety, ...run.favourites].join(" ");
  if (now === kept) return;
  kept = now;
  byId("kept-wall").replaceChildren(
    ...run.favourites.map((point) => {
      const holder = document.createElement("div");
      holder.className = "choosable";
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = chosen.has(point);
      box.setAttribute("aria-label", `Choose ${title(point)}`);
      box.addEventListener("change", () => {
        if (box.checked) chosen.add(point);
        else chosen.delete(point);
        showChoice();
      });
      const button = tile(point);
      button.addEventListener("click", () => set({ open: point }));
      holder.append(button, box);
      return holder;
    }),
  );
}

function showChoice() {
  const mixes = run.favourites.length > 1;
  byId("blend").disabled = byId("mix").disabled = chosen.size !== 2;
  byId("mix").hidden = !run.mixes;
  byId("walk").disabled = walkable().length < 2;
  byId("walk").textContent = walkName();
  byId("drop").disabled = !chosen.size;
  byId("hint").textContent = !run.favourites.length
    ? "Open a picture and press the heart. Favourites are kept on this machine."
    : mixes ? "Choose two to blend them, or any number to walk through them." : "Keep another one to blend them.";
}

const STOPS_MOST = 24;
function walkable() {
  const points = chosen.size ? [...chosen] : run.favourites;
  return points.filter((point) => parse(point).kind !== "mix");
}

// What is walked through is said: mixtures have no way between them, and a film has an end.
function walkName() {
  const count = walkable().length;
  const all = chosen.size ? "" : run.favourites.length > count ? " all but mixtures" : " all";
  const some = count > STOPS_MOST ? ` the first ${STOPS_MOST}` : all;
  return some ? `Walk through${some} as a film` : "Walk as a film";
}

async function joined(join) {
  try {
    const places = await Promise.all(
      [...chosen].map((point) => (parse(point).kind === "place" ? point : frozen(point))),
    );
    set({ open: join(...places) });
  } catch (error) {
    toast(error.message);
  }
}

byId("blend").addEventListener("click", () => joined((a, b) => `${a}*${b}*0.5`));
byId("mix").addEventListener("click", () => joined((a, b) => `${a}~${b}`));
byId("walk").addEventListener("click", () => set({ film: walkable().slice(0, STOPS_MOST).join(",") }));
byId("drop").addEventListener("click", () => keep({ drop: [...chosen] }));

// --- films ------------------------------------------------------------------------------------------------

function showFilm() {
  const dialog = byId("film");
  const video = byId("video");
  if (!state.film) {
    video.removeAttribute("src");
    video.load();
    return dialog.close();
  }
  const url = (kind) => `/film.${kind}?${asked({ p: state.film })}`;
  byId("film-said").textContent = "Making the film …";
  video.hidden = true;
  video.src = url("mp4");
  const links = ["mp4", "gif", "webp"].map((kind) => {
    const link = document.createElement("a");
    link.href = url(kind);
    link.download = `walk.${kind}`;
    link.textContent = kind === "mp4" ? "Film (MP4)" : kind === "gif" ? "GIF" : "WebP";
    return link;
  });
  byId("film-links").replaceChildren(...links);
  if (!dialog.open) dialog.showModal();
}

byId("video").addEventListener("loadeddata", () => {
  byId("video").hidden = false;
  byId("film-said").textContent = "";
});
byId("video").addEventListener("error", async () => {
  if (!byId("video").hasAttribute("src")) return;
  const answer = await fetch(byId("video").src).catch(() => null);
  const told = !answer ? { error: "The studio does not answer; is it still running?" }
    : answer.ok ? {} : await answer.json().catch(() => ({}));
  byId("film-said").textContent = told.error ?? "This browser cannot play it; the links below work.";
});

// --- a photo's twin ---------------------------------------------------------------------------------------

let search = 0;
async function findTwin(file) {
  const mine = ++search;
  byId("twin-said").textContent = "Searching …";
  byId("twin-open").hidden = byId("twin-target").hidden = byId("twin-picture").hidden = true;
  byId("twin-target-said").textContent = byId("twin-picture-said").textContent = "";
  byId("twin-progress").hidden = false;
  byId("twin-progress").removeAttribute("value");
  if (!byId("twin").open) byId("twin").showModal();
  try {
    if (file.size > run.upload_max) throw new Error("This file is too large for a photo.");
    const { name } = await ask(`/api/twin?${asked()}`, {
      method: "POST", headers: { "content-type": "application/octet-stream" }, body: file,
    });
    for (;;) {
      const twin = await ask(`/api/twin/${name}`);
      if (mine !== search) return;
      if (twin.error) throw new Error(twin.error);
      if (twin.total) byId("twin-progress").value = twin.done / twin.total;
      if (twin.result) return showTwin(twin.result);
      await new Promise((done) => setTimeout(done, 300));
    }
  } catch (error) {
    if (mine !== search) return;
    byId("twin-progress").hidden = true;
    byId("twin-said").textContent = error.message;
  }
}

function showTwin(found) {
  byId("twin-progress").hidden = true;
  byId("twin-target").src = found.target;
  byId("twin-picture").src = pictureUrl(found.point);
  byId("twin-target").hidden = byId("twin-picture").hidden = byId("twin-open").hidden = false;
  byId("twin-target-said").textContent = "Your photo, as the generator would see it";
  byId("twin-picture-said").textContent = "The most like it that the generator draws";
  byId("twin-said").textContent = found.verdict;
  byId("twin-open").onclick = () => {
    byId("twin").close();
    set({ open: found.point });
  };
}

byId("choose").addEventListener("click", () => byId("photo").click());
byId("photo").addEventListener("change", (event) => {
  if (event.target.files[0]) findTwin(event.target.files[0]);
  event.target.value = "";
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("shade").hidden = ![...event.dataTransfer.types].includes("Files");
});
addEventListener("dragleave", (event) => event.relatedTarget === null && (byId("shade").hidden = true));
addEventListener("drop", (event) => {
  event.preventDefault();
  byId("shade").hidden = true;
  if (event.dataTransfer.files[0]) findTwin(event.dataTransfer.files[0]);
});

// --- dialogs, tabs, keys ----------------------------------------------------------------------------------

// What is open is in the address: it is that which changes, at once, and the dialog follows. Its own close event
// comes a little later, when another picture may already be open.
function shut(dialog) {
  if (dialog.id in state) set({ [dialog.id]: "" });
  else dialog.close();
}

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.querySelector("[data-close]")?.addEventListener("click", () => shut(dialog));
  dialog.addEventListener("pointerdown", (event) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    const { clientX: x, clientY: y } = event;
    if (event.target === dialog && (x < left || x > right || y < top || y > bottom)) shut(dialog);
  });
  dialog.addEventListener("cancel", (event) => {
    event.preventDefault();
    shut(dialog);
  });
  dialog.addEventListener("close", () => {
    if (dialog.open) return;
    if (dialog.id in state) set({ [dialog.id]: "" });
    if (dialog.id === "twin") search += 1;
  });
}

function showTab() {
  for (const name of TABS) {
    const shown = name === state.tab;
    byId(name).hidden = !shown;
    byId(`tab-${name}`).setAttribute("aria-selected", shown);
    byId(`tab-${name}`).tabIndex = shown ? 0 : -1;
  }
  if (state.tab === "report") {
    const frame = document.createElement("iframe");
    frame.title = "Report";
    frame.src = "/report";
    frame.setAttribute("sandbox", "allow-scripts allow-popups allow-popups-to-escape-sandbox");
    byId("report").replaceChildren(frame);
  }
}

document.querySelector("nav").addEventListener("click", (event) => {
  const tab = event.target.closest("[data-tab]");
  if (tab) set({ tab: tab.dataset.tab });
});
document.querySelector("nav").addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const place = (TABS.indexOf(state.tab) + by + TABS.length) % TABS.length;
  set({ tab: TABS[place] });
  byId(`tab-${TABS[place]}`).focus();
});

function moveFocus(event) {
  const from = event.target.closest(".tile");
  const grid = from?.closest(".wall");
  if (!grid) return false;
  const tiles = [...grid.querySelectorAll(".tile")];
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (!by) return false;
  tiles[tiles.indexOf(from) + by]?.focus();
  return true;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=range]):not([type=checkbox]), select")) return;
  if (state.open && !byId("twin").open && !byId("film").open) return openKeys(event);
  if (document.querySelector("dialog[open]")) return;
  if (moveFocus(event)) return event.preventDefault();
  if (event.key === "r" || event.key === "R") reroll();
  else if (event.key === "?") byId("keys").showModal();
  else if (TABS[Number(event.key) - 1]) set({ tab: TABS[Number(event.key) - 1] });
});
byId("help").addEventListener("click", () => byId("keys").showModal());

// --- moments ----------------------------------------------------------------------------------------------

byId("moment").addEventListener("change", (event) => set({ moment: event.target.value }));
byId("variety").addEventListener("change", (event) => set({ variety: event.target.value }, { replace: true }));

function showMoments() {
  const options = Object.keys(run.moments).map((name) => {
    const option = document.createElement("option");
    option.value = name;
    option.textContent = momentName(name);
    return option;
  });
  byId("moment").replaceChildren(...options);
  byId("moment").value = moment();
  byId("moment").disabled = options.length < 2;
  byId("empty").hidden = options.length > 0;
  if (run.trouble) byId("empty").textContent = run.trouble;
}

async function refresh(moments) {
  if (JSON.stringify(moments) === JSON.stringify(run.moments)) return;
  const before = stamp();
  run.moments = moments;
  if (!run.width) Object.assign(run, await ask("/api/run"));
  showMoments();
  if (!wall.children.length) begin();
  else if (before !== stamp()) {
    redraw();
    tell({ ...state, open: null });
  }
}

watch((changed) => {
  if (changed("tab")) showTab();
  if (changed("moment")) showMoments();
  byId("variety").value = state.variety;
  if (changed("from")) begin();
  else if (changed("variety") || changed("moment")) redraw();
  showFavourites();
  if (changed("film")) showFilm();
});

async function start() {
  const [facts, favourites] = await Promise.all([ask("/api/run"), ask("/api/favourites")]);
  Object.assign(run, facts, { favourites });
  byId("name").textContent = run.name;
  document.title = `${run.name} · bonsaigan studio`;
  showMoments();
  tell();
  watchTraining(refresh);
}

start().catch((error) => toast(error.message));
