// Two answers to one query, side by side: where the same sample stands on the other side.

import { el } from "./dom.js";
import { t } from "./i18n.js";

/** Sample id -> rank in its domain, from 1. */
export function ranksOf(answer) {
  const ranks = new Map();
  for (const hits of Object.values(answer.results)) {
    hits.forEach((hit, i) => ranks.set(hit.sample_id, i + 1));
  }
  return ranks;
}

/** The other side as a judgment names it; null: there is none. */
export function rivalOf(hit, other) {
  if (!other) return null;
  const { model, mode } = other.answer;
  return { model, mode, rank: other.ranks.get(hit.sample_id) ?? null };
}

/** How much higher or lower a hit stands than on the other side. */
export function rankChange(rank, rival) {
  if (!rival) return null;
  if (rival.rank === null) return change("only", t("compare.only"), t("compare.only.label"));
  const n = Math.abs(rival.rank - rank);
  if (!n) return change("same", "=", t("compare.same"));
  return rival.rank > rank
    ? change("up", `▲ ${n}`, t("compare.up", { n }))
    : change("down", `▼ ${n}`, t("compare.down", { n }));
}

const change = (kind, text, label) =>
  el("span", { class: `change ${kind}`, title: label, role: "img", "aria-label": label }, text);
