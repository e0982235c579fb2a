// One hit: its picture, text, score, and what can be done with it.

import * as api from "./api.js";
import { rankChange } from "./compare.js";
import { openDetails } from "./details.js";
import { el, icon, iconButton } from "./dom.js";
import { cycleFrames } from "./frames.js";
import { clock, score, t } from "./i18n.js";
import { thumbs } from "./judge.js";
import { marked, wordsToMark } from "./marks.js";
import { DRAG_TYPE, searchWith } from "./query.js";
import { whyView } from "./why.js";

/** A hit as a tile; place: {ask, side, answer, rank, rival}, see results.js. */
export function hitView(hit, place) {
  const tile = el(
    "article",
    { class: "hit", draggable: "true", "data-id": hit.sample_id, "data-domain": hit.domain },
    picture(hit, place),
    el("p", { class: "text" }, textOf(hit, place)),
    meta(hit, place),
    actions(hit, place),
  );
  tile.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData(DRAG_TYPE, hit.sample_id);
    event.dataTransfer.setData("text/plain", hit.sample_id);
    event.dataTransfer.effectAllowed = "copy";
    const image = tile.querySelector("img");
    if (image) event.dataTransfer.setDragImage(image, 40, 40);
  });
  return tile;
}

function picture(hit, place) {
  const image = el("img", { src: api.frameUrl(hit.sample_id), alt: "", loading: "lazy", draggable: "false" });
  const open = () => openDetails(hit.sample_id, hit, place);
  const label = t("hit.open", { domain: t(`one.${hit.domain}`), id: hit.sample_id });
  const box = el(
    "div", // no button: Firefox does not drag from one
    { class: "picture", role: "button", tabindex: "0", "aria-label": label, onclick: open },
    image,
    el("span", { class: "rank", title: t("hit.rank", { rank: place.rank }) }, String(place.rank)),
    hit.domain === "page" ? null : playMark(hit),
  );
  image.addEventListener("error", () => image.replaceWith(el("span", { class: "no-image" }, icon("film"))));
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open();
  });
  cycleFrames(box, image, hit.sample_id);
  return box;
}

function playMark({ moment }) {
  const time = moment && clock(moment.start_s);
  const title = moment && t("hit.moment", { time, text: moment.text });
  return el("span", { class: "play", title }, icon("play"), time);
}

function textOf(hit, { ask }) {
  if (!hit.text) return el("span", { class: "none" }, t("hit.no.text"));
  return marked(hit.text, wordsToMark(hit.explanation, ask.text));
}

function meta(hit, { ask, rank, rival }) {
  return el(
    "p",
    { class: "meta" },
    el("span", { class: "score" }, score(hit.score)),
    rankChange(rank, rival),
    ask.group ? null : el("span", { class: "product-id" }, hit.product_id ?? t("hit.no.product")),
  );
}

function actions(hit, place) {
  const again = iconButton("again", t("hit.again"), () => searchWith(hit.sample_id), { "data-key": "s" });
  const row = el("div", { class: "actions" }, again);
  if (hit.explanation) {
    const why = iconButton("why", t("hit.why"), () => toggleWhy(why, hit), {
      "data-key": "w",
      "aria-expanded": "false",
    });
    row.append(why);
  }
  row.append(thumbs(hit, place));
  return row;
}

function toggleWhy(button, hit) {
  const tile = button.closest(".hit");
  const shown = tile.querySelector(".why");
  button.setAttribute("aria-expanded", String(!shown));
  if (shown) shown.remove();
  else tile.append(whyView(hit.explanation));
}
