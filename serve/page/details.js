// The dialog of one sample: its clip at the moment that fits, its texts, columns and score.

import * as api from "./api.js";
import { columnTypes } from "./catalog.js";
import { byId, el, icon, iconButton } from "./dom.js";
import { clock, dateTime, t } from "./i18n.js";
import { thumbs } from "./judge.js";
import { marked, wordsToMark } from "./marks.js";
import { momentOf, momentText, playAt, player } from "./player.js";
import { problemText, problemView } from "./problems.js";
import { searchWith } from "./query.js";
import { whyView } from "./why.js";

let latest = 0; // the sample that is shown, or the dialog's end

/** Connects the dialog. */
export function startDetails() {
  const dialog = byId("details");
  dialog.addEventListener("close", () => {
    latest += 1;
    dialog.replaceChildren(); // ends its video
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

/** Opens a sample; hit and place (see results.js) are those of the search that found it. */
export async function openDetails(id, hit = null, place = null) {
  const mine = (latest += 1);
  const dialog = byId("details");
  const body = el("div", { class: "details-body" }, el("p", { class: "loading" }, t("loading")));
  dialog.replaceChildren(head(id), body);
  if (!dialog.open) dialog.showModal();
  try {
    const sample = await api.sample(id);
    if (mine !== latest) return;
    const words = wordsToMark(hit?.explanation, place?.ask.text);
    dialog.replaceChildren(head(id, sample), body);
    const stage = stageView(sample);
    body.replaceChildren(
      el("div", { class: "stage-side" }, stage.node, tools(id, hit, place)),
      el(
        "div",
        { class: "facts" },
        texts(sample, words, stage),
        hit?.explanation ? section(t("why.title"), whyView(hit.explanation)) : null,
        columnsView(sample),
      ),
    );
    await stage.start(hit, place);
  } catch (error) {
    if (mine === latest) body.replaceChildren(problemView(error, () => openDetails(id, hit, place)));
  }
}

function head(id, sample = null) {
  const close = iconButton("close", t("close"), () => byId("details").close());
  const domain = sample && el("span", { class: "badge", "data-domain": sample.domain }, t(`one.${sample.domain}`));
  const title = sample ? (sample.product_id ?? t("hit.no.product")) : id;
  return el(
    "header",
    {},
    domain,
    el("h2", { id: "details-title" }, title),
    sample ? el("span", { class: "sample-id" }, id) : null,
    close,
  );
}

function tools(id, hit, place) {
  const again = () => {
    byId("details").close();
    searchWith(id);
  };
  return el(
    "div",
    { class: "tools" },
    el("button", { type: "button", class: "button", onclick: again }, icon("again"), t("details.again")),
    hit && place ? thumbs(hit, place) : null,
  );
}

/**
 * Where a sample is seen: {node, start(hit, place), seek(seconds)}.
 *
 * A clip is played; pictures, and the frames of a clip that the browser cannot play, are shown.
 */
function stageView(sample) {
  const video = sample.media.find(({ content_type: type }) => type.startsWith("video/"));
  const note = el("p", { class: "moment", role: "status" });
  const screen = el("div", { class: "screen" });
  const strip = el("div", { class: "strip", role: "group", "aria-label": t("details.frames") });
  const node = el("div", { class: "stage" }, screen, note, strip);
  const stage = video ? clipStage(sample, video, { screen, note, strip }) : pictureStage(sample, screen);
  strip.replaceChildren(...stripButtons(sample, stage));
  strip.hidden = strip.children.length < 2;
  return { node, ...stage };
}

function pictureStage(sample, screen) {
  const pictures = sample.media.filter(({ content_type: type }) => type.startsWith("image/"));
  const show = (url) => screen.replaceChildren(el("img", { src: url, alt: sample.text ?? "" }));
  const first = pictures[0]?.url ?? sample.frames[0]?.url;
  if (first) show(first);
  else screen.append(icon("film"));
  return { start: () => {}, seek: null, showFrame: (frame) => show(frame.url) };
}

function clipStage(sample, media, { screen, note, strip }) {
  let moment = null;
  const showFrame = (frame) => screen.replaceChildren(el("img", { src: frame.url, alt: "" }));
  const broken = () => {
    const link = el("a", { href: media.url, target: "_blank", rel: "noopener" }, t("player.download"));
    note.replaceChildren(t("player.broken"), " ", link);
    const frame = sample.frames[nearestFrame(sample, moment)];
    if (frame) showFrame(frame);
  };
  const video = player(media, sample.frames[0]?.url, broken);
  screen.append(video);
  const seek = (seconds) => playAt(video, seconds);
  const start = async (hit, place) => {
    if (place && !hit.moment) note.textContent = t("player.finding");
    try {
      moment = await momentOf(hit, place);
      note.textContent = momentText(moment);
    } catch (error) {
      note.textContent = problemText(error);
    }
    if (!video.isConnected) return broken();
    markMoment(sample, moment, strip);
    seek(moment?.at_s ?? 0);
  };
  video.addEventListener("timeupdate", () => markSegment(video.currentTime));
  const jump = (frame) => (video.isConnected && frame.at_s !== null ? seek(frame.at_s) : showFrame(frame));
  return { start, seek, showFrame: jump };
}

function stripButtons(sample, stage) {
  return sample.frames.map((frame, n) => {
    const time = frame.at_s === null ? null : clock(frame.at_s);
    const label = time ? t("details.frame.at", { time }) : t("details.frame", { n: n + 1 });
    return el(
      "button",
      { type: "button", "aria-label": label, title: label, onclick: () => stage.showFrame(frame) },
      el("img", { src: frame.url, alt: "", loading: "lazy" }),
      time ? el("span", {}, time) : null,
    );
  });
}

/** The number of the frame of a moment. */
function nearestFrame({ frames }, moment) {
  if (!moment) return 0;
  if (moment.frame !== null && moment.by === "frame") return moment.frame;
  const distances = frames.map(({ at_s: at }) => Math.abs((at ?? 0) - moment.at_s));
  return distances.indexOf(Math.min(...distances));
}

function markMoment(sample, moment, strip) {
  const button = moment && strip.children[nearestFrame(sample, moment)];
  if (!button) return;
  button.classList.add("on");
  strip.scrollLeft = button.offsetLeft - strip.offsetLeft - strip.clientWidth / 2 + button.clientWidth / 2;
}

/** Marks the segment of the transcript that is said now, or was last. */
function markSegment(seconds) {
  const lines = [...document.querySelectorAll("#details .segment")];
  const now = lines.findLast((line) => seconds >= Number(line.dataset.start));
  for (const line of lines) {
    if (line === now) line.setAttribute("aria-current", "true");
    else line.removeAttribute("aria-current");
  }
}

function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), ...content);
}

/** The title of a page; the summary beside the transcript of a clip. */
function texts(sample, words, stage) {
  const none = (text) => el("p", { class: "none" }, text);
  const paragraph = (text) => el("p", { class: "words" }, marked(text, words));
  const written = sample.summaries.filter(({ text }) => text);
  if (sample.domain === "page" && !written.length && !sample.transcript) {
    return section(t("details.title"), sample.text ? paragraph(sample.text) : none(t("hit.no.text")));
  }
  const summaries = written.length
    ? written.map(({ method, text }) => [written.length > 1 ? el("h4", {}, method) : null, paragraph(text)])
    : sample.text ? paragraph(sample.text) : none(t("details.no.summary"));
  return el(
    "div",
    { class: "texts" },
    section(t("details.summary"), [summaries].flat(2).filter(Boolean)),
    section(t("details.transcript"), transcriptView(sample.transcript, words, stage, { none, paragraph })),
  );
}

function transcriptView(transcript, words, stage, { none, paragraph }) {
  if (!transcript?.text) return none(t("details.no.transcript"));
  const { segments } = transcript;
  if (!segments?.length) return paragraph(transcript.text);
  return el("ol", { class: "segments" }, segments.map((segment) => segmentLine(segment, words, stage)));
}

function segmentLine({ start_s: start, text }, words, stage) {
  const time = clock(start);
  const play = { type: "button", "aria-label": t("details.frame.at", { time }), onclick: () => stage.seek?.(start) };
  return el(
    "li",
    { class: "segment", "data-start": start },
    el("button", { ...play, disabled: !stage.seek }, time),
    el("span", {}, marked(text, words)),
  );
}

function columnsView(sample) {
  const values = Object.entries(sample.columns ?? {});
  if (sample.origin) values.push([t("details.origin"), sample.origin]);
  const types = columnTypes();
  const shown = (name, value) => {
    if (value === null) return t("details.none");
    if (types.get(name) === "timestamp") return dateTime(value);
    return Array.isArray(value) ? value.join(", ") : String(value);
  };
  const rows = values.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, shown(name, value))]);
  return rows.length ? section(t("details.columns"), el("dl", { class: "columns-list" }, rows)) : null;
}
