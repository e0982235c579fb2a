// The index as it is served, and the rows that failed with their reasons.

import * as api from "./api.js";
import { index, readIndex } from "./catalog.js";
import { byId, el } from "./dom.js";
import { ago, dateTime, number, percent, t } from "./i18n.js";
import { DOMAINS } from "./link.js";
import { problemView } from "./problems.js";
import { choice, sampleCell, table } from "./tables.js";

let period = "today";

/** Shows the view. */
export async function showStatus() {
  const view = byId("view-index");
  view.replaceChildren(head(), el("p", { class: "loading" }, t("loading")));
  try {
    const [served, failed] = await Promise.all([readIndex(), api.failures()]);
    showFreshness();
    const failures = el("section", { class: "list" });
    showFailures(failures, failed);
    view.replaceChildren(head(), el("div", { class: "models" }, served.models.map(modelView)), catalogView(served), failures);
  } catch (error) {
    view.replaceChildren(head(), problemView(error, showStatus));
  }
}

/** Shows in the header how many samples are served, and how new. */
export function showFreshness() {
  if (index() === undefined) return;
  const model = index()?.models[0];
  byId("freshness").classList.toggle("off", !model);
  if (!model) {
    byId("freshness").textContent = t("index.unreachable");
    return;
  }
  const rows = number(Object.values(model.rows).reduce((sum, count) => sum + count, 0));
  const age = model.newest_change_age_s;
  byId("freshness").textContent =
    age === null ? t("index.freshness.none", { rows }) : t("index.freshness", { rows, age: ago(age) });
}

function head() {
  const refresh = el("button", { type: "button", class: "button", onclick: showStatus }, t("refresh"));
  return el("header", { class: "view-head" }, el("h1", {}, t("index.title")), refresh);
}

function modelView(model) {
  const { version, base_version: base, changes } = model;
  const age = model.newest_change_age_s;
  const facts = [
    [t("index.version"), `${version} (${t("index.base", { version: base, changes: number(changes) })})`],
    [t("index.newest"), age === null ? t("details.none") : ago(age)],
    [t("index.built"), model.built_at ? dateTime(model.built_at) : t("details.none")],
    [t("index.dimension"), String(model.dimension)],
    [t("index.text"), t(model.reads_text ? "coverage.yes" : "coverage.no")],
  ];
  return el(
    "section",
    { class: "panel model" },
    el("h2", {}, model.model, el("span", { class: "sample-id" }, model.name)),
    table(
      ["", t("index.rows"), t("index.recall")],
      DOMAINS.map((domain) => [
        el("span", { class: "badge", "data-domain": domain }, t(`domain.${domain}`)),
        number(model.rows[domain] ?? 0),
        (model.recall?.[domain] ?? null) === null ? t("details.none") : percent(model.recall[domain]),
      ]),
    ),
    el("dl", {}, facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])),
  );
}

function catalogView({ columns, engines }) {
  const types = columns.map(({ name, type }) =>
    el("span", { class: "tag" }, name, el("small", {}, t(`type.${type}`))),
  );
  const states = Object.entries(engines).map(([name, isOn]) =>
    el("span", { class: "tag" }, t(`index.${name}`), el("small", {}, t(isOn ? "index.on" : "index.off"))),
  );
  return el(
    "div",
    { class: "models" },
    el("section", { class: "panel" }, el("h2", {}, t("index.columns")), types.length ? types : t("details.none")),
    el("section", { class: "panel" }, el("h2", {}, t("index.engines")), states),
  );
}

const isToday = (iso) => new Date(iso).toDateString() === new Date().toDateString();

function showFailures(view, { total, failures }) {
  const today = failures.filter(({ failed_at: time }) => isToday(time));
  const shown = period === "today" ? today : failures;
  const options = [
    { name: "today", count: number(today.length), label: t("index.failures.today") },
    { name: "all", count: number(total), label: t("index.failures.all") },
  ];
  const choose = (name) => {
    period = name;
    showFailures(view, { total, failures });
    view.querySelector(`[data-name="${name}"]`).focus();
  };
  const rows = shown.map(({ stage, sample_id: id, error_type: type, error, failed_at: time }) => [
    dateTime(time),
    stage,
    sampleCell(id),
    el("div", {}, el("b", {}, type), el("p", { class: "detail" }, error)),
  ]);
  const heads = ["index.time", "index.stage", "index.sample", "index.error"].map((key) => t(key));
  view.replaceChildren(
    el("h2", {}, t("index.failures")),
    choice(t("index.failures"), options, period, choose),
    rows.length ? table(heads, rows) : el("p", { class: "none" }, t("index.failures.none")),
  );
}
