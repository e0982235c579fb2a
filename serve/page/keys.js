// Keys for the search field, the results and the help.

import { byId, el } from "./dom.js";
import { t } from "./i18n.js";

const HELP = [
  ["/"], ["← → ↑ ↓", "arrows"], ["Enter", "enter"], ["S", "s"], ["W", "w"], ["+ −", "+-"],
  ["Ctrl V", "paste"], ["Esc", "esc"],
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const ACTIONS = { s: "s", w: "w", "+": "+", "=": "+", "-": "-" };

/** Connects the keys. */
export function startKeys() {
  byId("open-help").addEventListener("click", openHelp);
  document.addEventListener("keydown", (event) => {
    if (isTyping(event) || document.querySelector("dialog[open]")) return;
    if (event.key === "/") act(event, focusWords);
    else if (event.key === "?") act(event, openHelp);
    else if (event.key in ARROWS) moveFocus(event);
    else onHit(event);
  });
}

function isTyping({ target, ctrlKey, metaKey, altKey }) {
  return ctrlKey || metaKey || altKey || target.closest("input:not([type=checkbox]), select, textarea");
}

function act(event, action) {
  event.preventDefault();
  action();
}

function focusWords() {
  location.hash.startsWith("#/search") || (location.hash = "#/search");
  byId("words").focus();
  byId("words").select();
}

function openHelp() {
  const rows = HELP.flatMap(([keys, name]) => [
    el("dt", {}, keys.split(" ").map((key) => el("kbd", {}, key))),
    el("dd", {}, t(`help.${name ?? keys}`)),
  ]);
  byId("keys").replaceChildren(...rows);
  byId("help").showModal();
}

function onHit(event) {
  const name = ACTIONS[event.key.toLowerCase()];
  const hit = name && document.activeElement.closest(".hit");
  if (hit) act(event, () => hit.querySelector(`[data-key="${name}"]`)?.click());
}

/** Moves the focus to the nearest picture in the direction of an arrow. */
function moveFocus(event) {
  const here = document.activeElement.closest(".hit")?.querySelector(".picture");
  if (!here) return;
  const [x, y] = ARROWS[event.key];
  const from = here.getBoundingClientRect();
  let best = null;
  for (const picture of document.querySelectorAll(".hit .picture")) {
    const to = picture.getBoundingClientRect();
    if (picture === here || !to.width) continue;
    const along = x * (to.left - from.left) + y * (to.top - from.top);
    const across = Math.abs(y * (to.left - from.left)) + Math.abs(x * (to.top - from.top));
    const distance = along + 4 * across;
    if (along > 1 && (!best || distance < best.distance)) best = { picture, distance };
  }
  if (best) act(event, () => best.picture.focus());
}
