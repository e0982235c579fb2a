// Why a sample was found: the parts of its score as bars, its ranks, the words in its text.

import { el } from "./dom.js";
import { score, t } from "./i18n.js";

/** The explanation of a hit as a table of bars and ranks. */
export function whyView(explanation) {
  const bars = [
    ["file", explanation.file_similarity],
    ["words", explanation.words_similarity],
    ["whole", explanation.similarity],
  ].filter(([, value]) => value !== null && value !== undefined);
  return el(
    "div",
    { class: "why" },
    bars.map(([name, value]) => bar(name, value)),
    el("dl", {}, ranks(explanation)),
  );
}

function bar(name, value) {
  const label = t(`why.${name}`);
  const fill = el("i", { class: `fill ${name}` });
  fill.style.setProperty("--share", `${100 * Math.min(1, Math.max(0, value))}%`);
  return el(
    "div",
    { class: "bar" },
    el("span", {}, label),
    el("span", { class: "track", "aria-hidden": "true" }, fill),
    el("b", {}, score(value)),
  );
}

function ranks({ vector_rank: vector, lexical_rank: lexical, lexical_score: bm25, ...rest }) {
  const words = rest.matched_words ?? [];
  const byWords =
    lexical === null ? null : t("why.lexical", { rank: lexical, score: (bm25 ?? 0).toFixed(1) });
  const rows = [
    [t("why.vector.rank"), vector ?? t("why.unranked")],
    [t("why.lexical.rank"), byWords ?? t("why.unranked")],
  ];
  if (words.length) rows.push([t("why.matched"), el("span", {}, words.flatMap(markedWord))]);
  return rows.flatMap(([name, value]) => [
    el("dt", {}, name),
    el("dd", {}, value instanceof Node ? value : String(value)),
  ]);
}

const markedWord = (word) => [el("mark", {}, word), " "];
