// The query form: a file, a result or words; domains; how to rank. It reads and shows an ask.

import * as api from "./api.js";
import { models } from "./catalog.js";
import { byId, el, icon, iconButton, select } from "./dom.js";
import { filesOf, keep, previewUrl } from "./files.js";
import { readFilter, showFilter } from "./filter.js";
import { t } from "./i18n.js";
import { MODES, emptyAsk } from "./link.js";

export const DRAG_TYPE = "application/x-ampere-sample";

let attached = { sample: "", file: "" };
let hits; // how many are asked for
let onAsk;

const domainBoxes = () => [...document.querySelectorAll("[name=domain]")];

/** Connects the form; `ask` is called with each new search. */
export function startQuery(ask) {
  onAsk = ask;
  byId("query").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("file").addEventListener("change", () => attachFiles([...byId("file").files]));
  byId("compare").addEventListener("change", () => {
    showRanking(sidesOf(byId("compare").checked));
    submitIfAsked();
  });
  for (const input of [...domainBoxes(), byId("group")]) {
    input.addEventListener("change", submitIfAsked);
  }
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    attachFiles(files);
  });
  byId("open-options").addEventListener("click", () => {
    const isOpen = byId("controls").classList.toggle("open");
    byId("open-options").setAttribute("aria-expanded", String(isOpen));
  });
  acceptDrops();
}

/** The search that the form shows. */
export function readAsk() {
  return {
    ...emptyAsk(),
    ...attached,
    text: byId("words").value.trim(),
    ...readFilter(),
    domains: domainBoxes().filter((box) => box.checked).map((box) => box.value),
    group: byId("group").checked,
    k: hits,
    sides: sidesOf(byId("compare").checked),
  };
}

/** Shows a search in the form. */
export function showAsk(ask) {
  byId("words").value = ask.text;
  for (const box of domainBoxes()) box.checked = ask.domains.includes(box.value);
  byId("group").checked = ask.group;
  byId("compare").checked = ask.sides.length > 1;
  hits = ask.k;
  showRanking(ask.sides);
  showFilter(ask);
  attach({ sample: ask.sample, file: ask.file });
}

/** Searches with a stored sample in place of the query. */
export function searchWith(sampleId) {
  attach({ sample: sampleId, file: "" });
  byId("words").value = "";
  submit();
  scrollTo({ top: 0 });
}

function submit() {
  hits = emptyAsk().k;
  onAsk(readAsk());
}

function submitIfAsked() {
  if (attached.sample || attached.file || byId("words").value.trim()) submit();
}

function attachFiles(files) {
  byId("file").value = "";
  if (!files.length) return;
  attach({ sample: "", file: keep(files) });
  submit();
}

function attach(value) {
  attached = value;
  const name = value.file || value.sample;
  byId("attached").replaceChildren(...(name ? [chip(name)] : []));
}

function chip(name) {
  const remove = iconButton("close", t("search.remove", { name }), () => {
    attach({ sample: "", file: "" });
    byId("words").focus();
  });
  return el("span", { class: "query-chip" }, picture(), el("span", { class: "name" }, label()), remove);
}

function label() {
  if (attached.sample) return attached.sample;
  const count = filesOf(attached.file).length;
  const name = attached.file;
  return count > 1 ? t("search.frames", { name, n: count - 1 }) : name;
}

/** The picture of what is attached; an icon where the browser cannot show it. */
function picture() {
  if (attached.sample) return thumbnail(el("img", { src: api.frameUrl(attached.sample), alt: "" }));
  const [file] = filesOf(attached.file);
  if (!file) return icon("film");
  const src = previewUrl(attached.file);
  const isVideo = file.type.startsWith("video/");
  return thumbnail(isVideo ? el("video", { src, muted: true }) : el("img", { src, alt: "" }));
}

function thumbnail(media) {
  media.addEventListener("error", () => media.replaceWith(icon("film")));
  return media;
}

function acceptDrops() {
  const box = byId("box");
  let depth = 0; // dragenter and dragleave come for each element on the way
  const isQuery = (event) =>
    event.dataTransfer.types.includes("Files") || event.dataTransfer.types.includes(DRAG_TYPE);
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    box.classList.toggle("dropping", depth > 0);
  };
  addEventListener("dragenter", (event) => isQuery(event) && mark(1));
  addEventListener("dragleave", (event) => isQuery(event) && mark(-1));
  addEventListener("dragend", () => mark(-depth));
  addEventListener("dragover", (event) => isQuery(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!isQuery(event)) return;
    event.preventDefault();
    mark(-depth);
    const sampleId = event.dataTransfer.getData(DRAG_TYPE);
    if (sampleId) searchWith(sampleId);
    else attachFiles([...event.dataTransfer.files]);
  });
}

/** The chosen model and mode of one side, or of both. */
function sidesOf(isCompared) {
  const shown = [...byId("ranking").querySelectorAll(".side-choice")].map((choice) => ({
    model: choice.querySelector("[name=model]")?.value ?? "",
    mode: choice.querySelector("[name=mode]").value,
  }));
  const [first = { model: "", mode: "auto" }, second] = shown;
  return isCompared ? [first, second ?? other(first)] : [first];
}

/** A second side that differs: the next model, or with one model another ranking. */
function other({ model, mode }) {
  const names = models().map((served) => served.model);
  const next = names.find((name) => name !== (model || names[0]));
  if (next) return { model: next, mode };
  return { model, mode: mode === "vector" ? "hybrid" : "vector" };
}

function showRanking(sides) {
  byId("ranking").classList.toggle("two", sides.length > 1);
  byId("ranking").replaceChildren(
    ...sides.map((side, i) => sideChoice(side, sides.length > 1 ? "ab"[i] : "")),
  );
}

function sideChoice(side, name) {
  const ending = name && `.${name}`;
  const onchange = submitIfAsked;
  const modes = MODES.map((mode) => [mode, t(`mode.${mode}`)]);
  const ranking = { name: "mode", "aria-label": t(`search.ranking${ending}`), onchange };
  const names = models().map(({ model }) => [model, model]);
  const chosen = { name: "model", "aria-label": t(`search.model${ending}`), onchange };
  return el(
    "span",
    { class: "side-choice" },
    name ? el("b", {}, name.toUpperCase()) : null,
    el("label", {}, el("span", {}, t("search.ranking")), select(modes, side.mode, ranking)),
    names.length > 1
      ? el("label", {}, el("span", {}, t("search.model")), select(names, side.model || names[0][0], chosen))
      : null,
  );
}
