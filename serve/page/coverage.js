// What the catalog lacks: products without a domain, near duplicates, doubtful products.

import * as api from "./api.js";
import { models } from "./catalog.js";
import { byId, el, select } from "./dom.js";
import { number, score, t } from "./i18n.js";
import { linkOf, emptyAsk } from "./link.js";
import { problemView } from "./problems.js";
import { choice, sampleCell, table } from "./tables.js";

const MISSING = ["page", "short", "live"];
let chosenModel = "";
let chosenList = null;
let latest = 0; // the request whose answer is shown

/** Shows the view. */
export async function showCoverage() {
  const view = byId("view-coverage");
  const mine = (latest += 1);
  const model = chosenModel || models()[0]?.model || "";
  view.replaceChildren(head(model), el("p", { class: "loading" }, t("loading")));
  try {
    const answer = await api.coverage(model);
    if (mine === latest) show(view, model, answer);
  } catch (error) {
    if (mine === latest) view.replaceChildren(head(model), problemView(error, showCoverage));
  }
}

function head(model) {
  const names = models().map((served) => [served.model, served.model]);
  const change = (event) => {
    chosenModel = event.target.value;
    showCoverage();
  };
  return el(
    "header",
    { class: "view-head" },
    el("h1", {}, t("coverage.title")),
    el("p", {}, t("coverage.text", { model })),
    names.length > 1
      ? select(names, model, { "aria-label": t("search.model"), onchange: change })
      : null,
  );
}

function show(view, model, answer) {
  const { counts } = answer;
  const lists = [
    ...MISSING.map((domain) => ({ name: `no.${domain}`, count: counts.missing[domain] ?? 0 })),
    { name: "duplicates", count: counts.duplicates },
    { name: "doubtful", count: counts.doubtful },
  ];
  chosenList ??= lists.find(({ count }) => count)?.name ?? lists[0].name;
  const options = lists.map(({ name, count }) => ({ name, count: number(count), label: t(`coverage.${name}`) }));
  const choose = (name) => {
    chosenList = name;
    show(view, model, answer);
    view.querySelector(`[data-name="${name}"]`).focus();
  };
  const products = el(
    "p",
    { class: "figure" },
    el("b", {}, number(counts.products)),
    el("span", {}, t("coverage.products")),
  );
  const bar = el("div", { class: "figures" }, products, choice(t("coverage.title"), options, chosenList, choose));
  const { count } = lists.find(({ name }) => name === chosenList);
  view.replaceChildren(head(model), bar, listView(chosenList, count, answer));
}

function listView(name, total, answer) {
  const { heads, rows } = rowsOf(name, answer);
  const content = rows.length ? table(heads, rows) : el("p", { class: "none" }, t("coverage.complete"));
  const limited = rows.length && rows.length < total
    ? el("p", { class: "hint" }, t("coverage.limited", { shown: number(rows.length), total: number(total) }))
    : "";
  return el("section", { class: "list" }, el("p", { class: "hint" }, t(`coverage.${name}.text`)), content, limited);
}

function rowsOf(name, { missing, duplicates, doubtful, pages }) {
  if (name === "duplicates") return duplicateRows(duplicates);
  if (name === "doubtful") return doubtfulRows(doubtful, pages);
  const domain = name.replace("no.", "");
  const rows = (missing[domain] ?? []).map((product) => [
    sampleCell(pages[product], product),
    pages[product] ? findLink(pages[product], domain) : "",
  ]);
  return { heads: [t("coverage.product"), ""], rows };
}

/** A link to a search for samples of the missing domain like the product's page. */
function findLink(sample, domain) {
  const href = linkOf({ ...emptyAsk(), sample, domains: [domain] });
  return el("a", { class: "button", href }, t(`coverage.find.${domain}`));
}

function duplicateRows(duplicates) {
  const rows = duplicates.map(({ first, second, similarity, same_product: isSame }) => [
    sampleCell(first),
    sampleCell(second),
    similarity.toFixed(4),
    t(isSame ? "coverage.yes" : "coverage.no"),
  ]);
  const heads = ["coverage.first", "coverage.second", "coverage.similarity", "coverage.same"];
  return { heads: heads.map((key) => t(key)), rows };
}

function doubtfulRows(doubtful, pages) {
  const rows = doubtful.map(({ sample_id: id, product_id: product, neighbors_product: other, similarity }) => [
    sampleCell(id),
    product,
    sampleCell(pages[other], other),
    score(similarity),
  ]);
  const heads = ["coverage.sample", "coverage.product", "coverage.neighbors", "coverage.similarity"];
  return { heads: heads.map((key) => t(key)), rows };
}
