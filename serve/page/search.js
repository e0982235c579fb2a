// Runs a search, on one side or on two, and shows what came of it.

import * as api from "./api.js";
import { columnTypes } from "./catalog.js";
import { announce, byId, el, icon } from "./dom.js";
import { filesOf } from "./files.js";
import { markFilterInvalid } from "./filter.js";
import { t } from "./i18n.js";
import { hasQuery } from "./link.js";
import { isAboutFilter, problemText, problemView } from "./problems.js";
import { searchBody } from "./request.js";
import { countText, showResults } from "./results.js";
import { filterSql } from "./sql.js";

let controller = null;
let shown = null; // the runs on the page

/** Searches for an ask; `search` is called with the next one, for more hits. */
export async function runSearch(ask, search) {
  controller?.abort();
  controller = null;
  const obstacle = obstacleOf(ask);
  if (obstacle) return showOnly(obstacle);
  const own = (controller = new AbortController());
  setBusy(true);
  announce(t("search.running"));
  try {
    const runs = await Promise.all(ask.sides.map((side) => answered(ask, side, own.signal)));
    byId("message").replaceChildren();
    shown = { runs, search };
    showAgain();
    announce(runs.map(countText).join("; "));
  } catch (error) {
    if (error.name === "AbortError") return;
    showOnly(problemView(error, () => runSearch(ask, search)));
    announce(problemText(error));
    if (isAboutFilter(error)) markFilterInvalid();
  } finally {
    if (controller === own) setBusy(false);
  }
}

/** Shows the last answers again, in another language. */
export function showAgain() {
  if (shown) showResults(shown.runs, shown.search);
}

async function answered(ask, side, signal) {
  const filter = filterSql(ask.conditions, ask.sql, columnTypes());
  const answer = await api.search(searchBody(ask, side, filter), signal);
  return { ask, side, answer, filter };
}

function setBusy(isBusy) {
  byId("progress").hidden = !isBusy;
  byId("results").setAttribute("aria-busy", String(isBusy));
}

function showOnly(node) {
  setBusy(false);
  shown = null;
  byId("results").replaceChildren();
  byId("message").replaceChildren(node);
}

/** Why a search cannot be run, as a view; null: it can. */
function obstacleOf(ask) {
  if (ask.file && !filesOf(ask.file).length) {
    const text = t("link.drop.text", { name: ask.file });
    return panel(t("link.drop"), text, "drop-again");
  }
  if (!hasQuery(ask)) return startView();
  if (!ask.domains.length) return panel(t("empty.title"), t("search.no.domain"), "empty");
  return null;
}

const panel = (title, text, kind) =>
  el("div", { class: `panel ${kind}`, role: "status" }, el("h2", {}, title), el("p", {}, text));

/** What the page says before the first search. */
function startView() {
  const ways = [["file", "image"], ["words", "search"], ["result", "again"]];
  return el(
    "div",
    { class: "start" },
    el("h2", {}, t("start.title")),
    el(
      "ul",
      {},
      ways.map(([way, name]) =>
        el("li", {}, icon(name), el("h3", {}, t(`start.${way}`)), el("p", {}, t(`start.${way}.text`))),
      ),
    ),
  );
}
