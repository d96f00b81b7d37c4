"use strict";
(() => {
  const root = document.documentElement;
  const lapse = document.querySelector(".lapse");
  if (!lapse) return;
  const frames = [...lapse.querySelectorAll("img")];
  const slider = lapse.querySelector("input");
  const button = lapse.querySelector("button");
  const moment = lapse.querySelector("output");
  const last = frames.length - 1;
  let timer = 0;

  function show(place) {
    frames.forEach((frame, i) => frame.classList.toggle("shown", i === place));
    slider.value = place;
    moment.textContent = frames[place].alt;
    slider.setAttribute("aria-valuetext", frames[place].alt);
    root.style.setProperty("--now", frames[place].dataset.at);
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    button.textContent = "Play";
  }

  function play() {
    let place = Number(slider.value) === last ? 0 : Number(slider.value);
    root.classList.add("moving");
    button.textContent = "Pause";
    show(place);
    timer = setInterval(() => {
      place += 1;
      show(place);
      if (place === last) stop();
    }, Math.min(500, Math.max(150, 6000 / frames.length)));
  }

  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => {
    stop();
    root.classList.add("moving");
    show(Number(slider.value));
  });
  lapse.querySelector(".controls").hidden = last === 0;
  show(last);
})();
