// The hits of a search: three columns of pages, shorts and lives, in rows of products on request;
// one side, or two to compare.

import { columnTypes } from "./catalog.js";
import { ranksOf, rivalOf } from "./compare.js";
import { byId, el } from "./dom.js";
import { hitView } from "./hit.js";
import { number, said, t } from "./i18n.js";
import { withMore } from "./link.js";
import { lacksWords } from "./request.js";

let shownDomain = null; // on a phone, which has room for one

/**
 * Shows the answers of a search.
 *
 * runs: [{ask, side, answer, filter}] of one side or two. onMore is called with the ask for more.
 */
export function showResults(runs, onMore) {
  const sides = runs.map((run) => ({ ...run, ranks: ranksOf(run.answer) }));
  const { ask } = runs[0];
  if (!ask.domains.includes(shownDomain)) [shownDomain] = ask.domains;
  const views = sides.map((side, i) => sideView(side, sides[1 - i], sides.length > 1 ? "AB"[i] : ""));
  const box = byId("results");
  box.replaceChildren(
    ask.domains.length > 1 ? domainTabs(ask.domains, sides) : "",
    el("div", { class: views.length > 1 ? "sides two" : "sides" }, views),
    moreButton(ask, sides, onMore) ?? "",
  );
  box.dataset.shown = shownDomain;
}

/** How many products and hits an answer has, in words. */
export function countText({ ask, answer }) {
  const hits = Object.values(answer.results).flat();
  const products = new Set(hits.map((hit) => hit.group ?? hit.sample_id)).size;
  const counts = { products: number(products), hits: number(hits.length) };
  return t(ask.group ? "search.summary" : "search.summary.hits", counts);
}

function sideView(side, other, name) {
  const { ask, answer } = side;
  const hits = Object.values(answer.results).flat();
  const content = !hits.length ? emptyView(side) : ask.group ? productRows(side, other) : columns(side, other);
  const view = el("section", { class: "side", "data-side": name || null }, summary(side, name), notes(side), content);
  view.style.setProperty("--columns", ask.domains.length);
  return view;
}

function summary(side, name) {
  const { answer } = side;
  const heading = el("h2", {}, name ? t("compare.side", { side: name }) : countText(side));
  const facts = [
    name ? countText(side) : null,
    t(`mode.${answer.mode}`),
    answer.model,
    t("search.version", { version: answer.version }),
    t("search.took", { ms: Math.round(answer.timing_ms.total) }),
  ];
  const parts = facts.filter(Boolean).map((fact) => el("span", {}, fact));
  return el("header", { class: "summary" }, heading, el("p", {}, parts));
}

function notes({ ask, side, answer }) {
  const { query } = answer;
  const lines = query.notes.map((note) => said(note, note.message));
  if (lacksWords(ask, side)) lines.push(t("search.by.vector"));
  if (query.transcript) lines.push(t("search.heard", { text: query.transcript }));
  if (query.text && query.text !== ask.text) lines.push(t("search.used", { text: query.text }));
  return lines.map((line) => el("p", { class: "note" }, line));
}

function emptyView({ answer, filter }) {
  const isLexical = answer.mode === "lexical";
  const advice = filter
    ? t("empty.filter", { filter })
    : t(isLexical ? "empty.lexical" : "empty.text");
  return el("div", { class: "panel empty" }, el("h2", {}, t("empty.title")), el("p", {}, advice));
}

const placeOf = (hit, side, other) => ({
  ...side,
  rank: side.ranks.get(hit.sample_id),
  rival: rivalOf(hit, other),
});

const view = (hit, side, other) => hitView(hit, placeOf(hit, side, other));

function columnHead(domain, count) {
  return el(
    "h3",
    { class: "column-head", "data-domain": domain },
    t(`domain.${domain}`),
    el("span", { class: "count" }, number(count)),
  );
}

function cell(domain, hits, side, other, attributes = {}) {
  const tiles = el("div", { class: "tiles" }, hits.map((hit) => view(hit, side, other)));
  const content = hits.length ? tiles : el("p", { class: "none" }, t("empty.cell"));
  return el("div", { class: "cell", "data-domain": domain, ...attributes }, content);
}

/** Without groups: a ranked list of each domain. */
function columns(side, other) {
  const { ask, answer } = side;
  const lists = ask.domains.map((domain) => {
    const hits = answer.results[domain] ?? [];
    const label = t(`domain.${domain}`);
    return cell(domain, hits, side, other, { role: "region", "aria-label": label });
  });
  return [heads(side), el("div", { class: "columns" }, lists)];
}

function heads({ ask, answer }) {
  const counts = ask.domains.map((domain) => columnHead(domain, answer.results[domain]?.length ?? 0));
  return el("div", { class: "columns heads" }, counts);
}

/** Groups: a row of each product, its best rank first. */
function productRows(side, other) {
  return [heads(side), ...productsOf(side).map((product) => productRow(product, side, other))];
}

/** [{name, columns, hits: {domain: hits}, best, sum}], best first. */
function productsOf({ answer }) {
  const products = new Map();
  for (const [domain, hits] of Object.entries(answer.results)) {
    const places = new Map(); // group -> rank among the groups of the domain
    for (const hit of hits) {
      const group = hit.group === null ? `sample ${hit.sample_id}` : `group ${hit.group}`;
      if (!places.has(group)) places.set(group, places.size + 1);
      if (!products.has(group)) {
        const { product_id: name, columns: values } = hit;
        products.set(group, { name, columns: values, hits: {}, best: Infinity, sum: 0 });
      }
      const product = products.get(group);
      if (!product.hits[domain]) product.sum += 1 / places.get(group);
      product.best = Math.min(product.best, places.get(group));
      (product.hits[domain] ??= []).push(hit);
    }
  }
  return [...products.values()].sort((a, b) => a.best - b.best || b.sum - a.sum);
}

function productRow({ name, columns: values, hits }, side, other) {
  const { domains } = side.ask;
  const found = Object.keys(hits).map((domain) => `has-${domain}`);
  return el(
    "section",
    { class: `product ${found.join(" ")}`, "data-product": name ?? "" },
    el("h3", {}, name ?? t("hit.no.product"), factsOf(values).map((fact) => el("span", {}, fact))),
    el("div", { class: "columns" }, domains.map((domain) => productCell(domain, hits[domain] ?? [], side, other))),
  );
}

/** A product's hits in a domain; with two sides there is room for the best one. */
function productCell(domain, hits, side, other) {
  if (!other || hits.length < 2) return cell(domain, hits, side, other);
  const box = cell(domain, hits.slice(0, 1), side, other);
  box.append(el("p", { class: "further" }, t("search.further", { n: number(hits.length - 1) })));
  return box;
}

/** The first texts and numbers of a product's columns. */
function factsOf(values) {
  const types = columnTypes();
  return Object.entries(values ?? {})
    .filter(([name, value]) => value !== null && ["string", "number"].includes(types.get(name)))
    .slice(0, 3)
    .map(([name, value]) => (types.get(name) === "number" ? `${name} ${number(value)}` : value));
}

/** Tabs that choose the domain on a phone. */
function domainTabs(domains, sides) {
  const count = (domain) =>
    Math.max(...sides.map(({ answer }) => answer.results[domain]?.length ?? 0));
  const choose = (domain) => {
    shownDomain = byId("results").dataset.shown = domain;
    for (const tab of tabs) tab.setAttribute("aria-selected", String(tab.dataset.domain === domain));
    for (const tab of tabs) tab.tabIndex = tab.dataset.domain === domain ? 0 : -1;
  };
  const tabs = domains.map((domain) =>
    el(
      "button",
      { type: "button", role: "tab", "data-domain": domain, onclick: () => choose(domain) },
      t(`domain.${domain}`),
      el("span", { class: "count" }, number(count(domain))),
    ),
  );
  const list = el("div", { class: "tabs", role: "tablist", "aria-label": t("search.domains") }, tabs);
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.stopPropagation();
    const at = tabs.findIndex((tab) => tab.dataset.domain === shownDomain);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    choose(next.dataset.domain);
    next.focus();
  });
  choose(shownDomain);
  return list;
}

function moreButton(ask, sides, onMore) {
  const more = withMore(ask);
  const units = (hits) => new Set(hits.map((hit) => (ask.group && hit.group) || hit.sample_id)).size;
  const isFull = ({ answer }) => Object.values(answer.results).some((hits) => units(hits) >= ask.k);
  if (!more || !sides.some(isFull)) return null;
  return el("button", { type: "button", class: "button more", onclick: () => onMore(more) }, t("search.more"));
}
