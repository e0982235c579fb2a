// A sample's frames while the pointer, or the focus, is on its picture.

import * as api from "./api.js";
import { el } from "./dom.js";

const START_MS = 200;
const STEP_MS = 600;
const lists = new Map(); // sample id -> promise of its frames

/** The frames of a sample, [{at_s, url}], asked for once. */
export function framesOf(id) {
  if (!lists.has(id)) {
    const list = api.frames(id).then((answer) => answer.frames);
    list.catch(() => lists.delete(id));
    lists.set(id, list);
  }
  return lists.get(id);
}

/** Cycles an image through the frames of a sample while the pointer or the focus is on `box`. */
export function cycleFrames(box, image, id) {
  let timer = null;
  let latest = 0; // the run that may go on
  const stop = () => {
    if (timer === null) return;
    clearTimeout(timer);
    timer = null;
    latest += 1;
    image.src = api.frameUrl(id);
    box.querySelector(".ticks")?.remove();
  };
  const start = () => {
    if (timer !== null || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    timer = setTimeout(() => run((latest += 1)), START_MS);
  };
  const run = async (mine) => {
    const frames = await framesOf(id).catch(() => []);
    if (mine !== latest || frames.length < 2) return;
    const ticks = el("span", { class: "ticks" }, frames.map(() => el("i")));
    box.append(ticks);
    let at = 0;
    const step = () => {
      at = (at + 1) % frames.length;
      image.src = frames[at].url;
      image.dataset.frame = at;
      [...ticks.children].forEach((tick, i) => tick.classList.toggle("on", i <= at));
      timer = setTimeout(step, STEP_MS);
    };
    step();
  };
  box.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && start());
  box.addEventListener("pointerleave", stop);
  box.addEventListener("focus", () => box.matches(":focus-visible") && start());
  box.addEventListener("blur", stop);
}
