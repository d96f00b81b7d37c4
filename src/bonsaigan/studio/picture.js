// One picture, opened: sliders that it follows, its nearest photograph, what to do with it.

import {
  address, ask, asked, byId, frozen, isFavourite, moment, momentName, parse, pictureUrl, placeName, run, set, stamp, state, title,
  toast, toggleFavourite, watch,
} from "/state.js";

const dialog = byId("open");
let directions = null;
let directionsOf = "";
let wanted = { url: "", point: "" };
let shown = "";
let busy = false;

// --- the picture ------------------------------------------------------------------------------------------

// Asks for the newest wish only, so that the picture never falls behind the hand.
async function follow(point, quick = false) {
  wanted = { url: pictureUrl(point, quick ? { quick: 1 } : {}), point };
  if (busy) return;
  busy = true;
  try {
    while (shown !== wanted.url) {
      const wish = wanted;
      const image = new Image();
      image.src = wish.url;
      try {
        await image.decode();
      } catch {
        if (wish === wanted) await ask(wish.url).catch((error) => toast(error.message));
        if (wish === wanted) break;
        continue;
      }
      image.alt = title(wish.point);
      image.dataset.url = wish.url;
      byId("big").replaceChildren(image);
      shown = wish.url;
    }
  } finally {
    busy = false;
  }
}

function show() {
  if (!state.open) return dialog.close();
  const point = parse(state.open);
  if (!dialog.open) dialog.showModal();
  byId("title").textContent = title(state.open);
  byId("other").textContent = momentName(moment());
  byId("other").hidden = Object.keys(run.moments).length < 2;
  byId("before").hidden = byId("after").hidden = point.seed == null;
  byId("before").disabled = point.seed === 0;
  byId("copy").hidden = point.seed == null;
  byId("swap").hidden = point.kind === "place";
  byId("thaw").hidden = point.kind !== "blend";
  byId("reset").hidden = point.kind !== "place";
  byId("png").href = pictureUrl(state.open);
  byId("png").download = `${title(state.open).replaceAll(/[ ,]+/g, "-")}.png`;
  showHeart();
  showPartners(point);
  follow(state.open);
  showSliders(point);
  showNearest(state.open);
}

function showHeart() {
  const loved = isFavourite(state.open);
  byId("favourite").textContent = loved ? "♥ Favourite" : "♡ Favourite";
  byId("favourite").setAttribute("aria-pressed", loved);
}

// --- sliders ----------------------------------------------------------------------------------------------

function slider(label, { low, high, step, value, ends }, moved) {
  const holder = document.createElement("label");
  const name = document.createElement("span");
  name.textContent = label;
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: low, max: high, step, value });
  input.setAttribute("aria-label", label);
  input.addEventListener("input", () => moved(Number(input.value), true));
  input.addEventListener("change", () => moved(Number(input.value), false));
  input.addEventListener("dblclick", () => {
    input.value = ends ? 0.5 : 0;
    moved(Number(input.value), false);
  });
  holder.append(name, input);
  return holder;
}

function goTo(point, moving) {
  if (moving) return follow(point, true);
  set({ open: point }, { replace: true });
}

async function showSliders(point) {
  const holder = byId("sliders");
  if (holder.dataset.of === key(point)) {
    // The same picture, moved: its sliders stay, for a hand may be on one of them.
    for (const [which, input] of [...holder.querySelectorAll("input")].entries()) {
      input.value = point.share ?? point.amounts.get(which) ?? 0;
    }
    return;
  }
  holder.dataset.of = key(point);
  if (point.kind === "blend") {
    const ends = { low: 0, high: 1, step: 0.01, value: point.share, ends: true };
    const blend = slider("Blend", ends, (share, moving) =>
      goTo(`${point.first}*${point.second}*${share}`, moving));
    return holder.replaceChildren(blend);
  }
  if (point.kind === "mix") return holder.replaceChildren();
  if (directionsOf !== stamp()) {
    const of = stamp();
    holder.textContent = "Finding the directions that change it most …";
    try {
      directions = await ask(`/api/directions?${asked()}`);
    } catch (error) {
      holder.dataset.of = "";
      return (holder.textContent = error.message);
    }
    directionsOf = of;
    if (!state.open || key(parse(state.open)) !== key(point)) {
      if (holder.dataset.of === key(point)) holder.dataset.of = "";
      return;
    }
    point = parse(state.open); // it may have been moved meanwhile
  }
  holder.replaceChildren(
    ...directions.map(({ name }, which) => {
      const range = { low: -run.amount_max, high: run.amount_max, step: 0.1, value: point.amounts.get(which) ?? 0 };
      return slider(name, range, (amount, moving) => {
        const now = new Map(point.amounts);
        for (const [place, other] of [...holder.querySelectorAll("input")].entries()) now.set(place, Number(other.value));
        now.set(which, amount);
        goTo(placeName(point.base, now), moving);
      });
    }),
  );
}

function key(point) {
  return point.kind === "place" ? `${stamp()} ${point.base}` : `${point.kind} ${point.first} ${point.second}`;
}

byId("reset").addEventListener("click", () => set({ open: parse(state.open).base }));
byId("swap").addEventListener("click", () => {
  const { kind, first, second, share } = parse(state.open);
  set({ open: kind === "mix" ? `${second}~${first}` : `${second}*${first}*${Number((1 - share).toFixed(2))}` });
});
byId("thaw").addEventListener("click", () => change(async () => set({ open: await frozen(state.open) })));

async function change(doing) {
  try {
    await doing();
  } catch (error) {
    toast(error.message);
  }
}

// --- partners ---------------------------------------------------------------------------------------------

function showPartners(point) {
  const others = run.favourites.filter((other) => other !== state.open && parse(other).kind === "place");
  byId("partners").hidden = point.kind !== "place" || !others.length;
  byId("partner-list").replaceChildren(
    ...others.map((other) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-label", `Blend with ${title(other)}`);
      const image = new Image();
      image.alt = "";
      image.src = pictureUrl(other);
      button.append(image);
      button.addEventListener("click", () => set({ open: `${state.open}*${other}*0.5` }));
      return button;
    }),
  );
}

// --- nearest training picture -----------------------------------------------------------------------------

let asking = 0;
async function showNearest(point) {
  const mine = ++asking;
  byId("nearest").classList.add("looking");
  byId("nearest-said").textContent = "Looking for the nearest training picture …";
  await new Promise((done) => setTimeout(done, 250));
  try {
    for (;;) {
      if (mine !== asking || state.open !== point) return;
      const found = await ask(`/api/nearest/${encodeURIComponent(point)}?${asked()}`);
      if (mine !== asking || state.open !== point) return;
      if (found.state === "ready") return tellNearest(found);
      if (found.state !== "looking") throw new Error(`No training pictures to compare with: ${found.state}.`);
      await new Promise((done) => setTimeout(done, 1500));
    }
  } catch (error) {
    byId("nearest").classList.remove("looking");
    byId("nearest-picture").hidden = true;
    byId("nearest-said").textContent = error.message;
  }
}

function tellNearest(found) {
  const image = byId("nearest-picture");
  byId("nearest").classList.remove("looking");
  image.src = `/real/${found.place}.png`;
  image.alt = `Training picture ${found.name}`;
  image.classList.toggle("mirrored", found.mirrored);
  image.hidden = false;
  const verdict = found.flagged ? "looks like a copy of it" : "not a copy";
  const [looked, all] = found.looked_at;
  const sampled = all ? ` ${looked.toLocaleString()} of ${all.toLocaleString()} were looked at; a copy of another would not be noticed.` : "";
  const name = document.createElement("bdi");
  name.textContent = found.name;
  byId("nearest-said").replaceChildren(
    "Nearest training picture: ", name,
    `${found.mirrored ? ", mirrored" : ""}. Closeness ${found.closeness}: ${verdict} (below 1 is one).${sampled}`,
  );
  byId("nearest").classList.toggle("flagged", found.flagged);
}

// --- actions and keys -------------------------------------------------------------------------------------

async function copy(text, said) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${said}: ${text.length > 60 ? `${text.slice(0, 60)} …` : text}`);
  } catch {
    toast(text);
  }
}

function step(by) {
  const { seed } = parse(state.open);
  if (seed != null && seed + by >= 0) set({ open: String(seed + by) }, { replace: true });
}

byId("other").addEventListener("click", () => {
  set({ moment: Object.keys(run.moments).find((name) => name !== moment()) }, { replace: true });
});
byId("before").addEventListener("click", () => step(-1));
byId("after").addEventListener("click", () => step(1));
byId("close").addEventListener("click", () => set({ open: "" }));
byId("favourite").addEventListener("click", () => toggleFavourite(state.open));
byId("copy").addEventListener("click", () => copy(String(parse(state.open).seed), "Copied the seed"));
byId("link").addEventListener("click", () => copy(location.origin + address(), "Copied the link"));

export function openKeys(event) {
  const onSlider = event.target.matches("input[type=range]");
  const press = { f: "favourite", c: "copy", l: "link", d: "png", m: "other" }[event.key.toLowerCase()];
  if (press && !byId(press).hidden) byId(press).click();
  else if (!onSlider && event.key === "ArrowLeft") step(-1);
  else if (!onSlider && event.key === "ArrowRight") step(1);
  else return;
  event.preventDefault();
}

watch((changed) => {
  if (changed("open") || changed("moment") || changed("variety")) show();
  else if (state.open) {
    showHeart();
    showPartners(parse(state.open));
  }
});
