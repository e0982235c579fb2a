// Texts with the words of the query marked.

import { el } from "./dom.js";

/** The words to mark for a hit: those it was found by, and those that were typed. */
export function wordsToMark(explanation, query) {
  const typed = (query ?? "").split(/[\s,，。、;；!！?？]+/).filter((word) => word.length > 1);
  return [...new Set([...(explanation?.matched_words ?? []), ...typed])];
}

/** A text as nodes; words are found in any case, those of Latin letters as whole words. */
export function marked(text, words) {
  const sources = words.filter(Boolean).sort((a, b) => b.length - a.length).map(source);
  if (!sources.length) return [text];
  const pattern = new RegExp(`(${sources.join("|")})`, "giu");
  return text.split(pattern).map((part, i) => (i % 2 ? el("mark", {}, part) : part));
}

function source(word) {
  const escaped = word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  return /^[\x00-\x7f]+$/.test(word) ? `(?<![a-z0-9])${escaped}(?![a-z0-9])` : escaped;
}
