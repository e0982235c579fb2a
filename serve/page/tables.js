// Tables with thumbnails, for the views of coverage and of the index.

import * as api from "./api.js";
import { openDetails } from "./details.js";
import { el, icon } from "./dom.js";
import { t } from "./i18n.js";

/** A table in a box that scrolls; rows: lists of cells, each a text or a node. */
export function table(heads, rows) {
  return el(
    "div",
    { class: "table-box", tabindex: "0" },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell ?? ""))))),
    ),
  );
}

/** A sample as its picture and id; a click opens it. */
export function sampleCell(id, note = null) {
  if (!id) return el("span", { class: "none" }, t("details.none"));
  const image = el("img", { src: api.frameUrl(id), alt: "", loading: "lazy" });
  image.addEventListener("error", () => image.replaceWith(icon("film")));
  return el(
    "button",
    { type: "button", class: "sample-cell", onclick: () => openDetails(id) },
    image,
    el("span", {}, el("b", {}, note ?? id), note ? el("small", {}, id) : null),
  );
}

/** Buttons of which one is chosen; options: [{name, label, count}]. */
export function choice(label, options, chosen, onchoose) {
  const buttons = options.map(({ name, label: text, count }) =>
    el(
      "button",
      { type: "button", "aria-pressed": String(name === chosen), "data-name": name, onclick: () => onchoose(name) },
      el("b", {}, count),
      el("span", {}, text),
    ),
  );
  return el("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}
