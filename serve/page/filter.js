// The filter: conditions on the catalog's columns, and a field for SQL.

import * as api from "./api.js";
import { columns, columnTypes } from "./catalog.js";
import { byId, el, iconButton, select } from "./dom.js";
import { t } from "./i18n.js";
import { OPERATORS, conditionSql, filterSql, isList, valuesOf } from "./sql.js";

const MAX_SUGGESTIONS = 200;
const INPUT_TYPES = { number: "text", timestamp: "datetime-local" };
const suggestions = new Map(); // column -> promise of its values

/** Connects the filter's buttons. */
export function startFilter() {
  byId("open-filter").addEventListener("click", () => open(byId("filter").hidden));
  byId("add-condition").addEventListener("click", () => {
    const row = addCondition();
    row?.querySelector("select").focus();
  });
  byId("clear-filter").addEventListener("click", () => {
    showFilter({ conditions: [], sql: "" });
    byId("query").requestSubmit();
  });
  byId("filter").addEventListener("input", preview);
}

/** The filter of the form: {conditions, sql}. */
export function readFilter() {
  const types = columnTypes();
  const rows = [...byId("conditions").querySelectorAll(".condition")].map(conditionOf);
  return {
    conditions: rows.filter((row) => conditionSql(types.get(row[0]), row)),
    sql: byId("sql").value.trim(),
  };
}

/** Shows the filter of an ask; opens it if it is not empty. */
export function showFilter({ conditions, sql }) {
  byId("conditions").replaceChildren();
  for (const condition of conditions) addCondition(condition);
  if (!conditions.length) addCondition();
  byId("sql").value = sql;
  byId("sql").removeAttribute("aria-invalid");
  byId("add-condition").hidden = !columns().length;
  if (conditions.length || sql) open(true);
  preview();
}

/** Marks the filter as wrong, and shows it. */
export function markFilterInvalid() {
  open(true);
  byId("sql").setAttribute("aria-invalid", "true");
}

function open(isOpen) {
  byId("filter").hidden = !isOpen;
  byId("open-filter").setAttribute("aria-expanded", String(isOpen));
}

function preview() {
  const { conditions, sql } = readFilter();
  const count = conditions.length + (sql ? 1 : 0);
  byId("filter-preview").textContent = filterSql(conditions, sql, columnTypes());
  byId("filter-count").textContent = count;
  byId("filter-count").hidden = !count;
}

function conditionOf(row) {
  const values = [...row.querySelectorAll("[name=value]")].map((input) => input.value);
  const [column, operator] = ["column", "operator"].map(
    (name) => row.querySelector(`[name=${name}]`).value,
  );
  return [column, operator, ...values];
}

function addCondition([column, operator, ...values] = []) {
  const names = columns().map(({ name }) => [name, name]);
  if (!names.length) return null;
  const row = el("div", { class: "condition", role: "group", "aria-label": t("filter.title") });
  const choose = select(names, column, { name: "column", "aria-label": t("filter.column") });
  choose.addEventListener("change", () => fill(row, choose));
  row.append(choose);
  byId("conditions").append(row);
  fill(row, choose, operator, values);
  return row;
}

/** Puts a column's operators and inputs after its name. */
function fill(row, choose, operator, values = []) {
  const type = columnTypes().get(choose.value) ?? "string";
  const operators = OPERATORS[type].map((name) => [name, t(`op.${name}`)]);
  const how = select(operators, operator, { name: "operator", "aria-label": t("filter.operator") });
  how.addEventListener("change", () => {
    const typed = conditionOf(row).slice(2);
    fill(row, choose, how.value, typed);
    row.querySelector("[name=operator]").focus();
  });
  const inputs = Array.from({ length: valuesOf(how.value) }, (_, i) =>
    valueInput(type, how.value, values[i] ?? "", i),
  );
  const remove = iconButton("close", t("filter.remove"), () => {
    row.remove();
    preview();
  });
  const list = el("datalist", { id: `values-${crypto.getRandomValues(new Uint32Array(1))[0]}` });
  row.replaceChildren(choose, how, ...inputs, list, remove);
  if (["string", "strings"].includes(type) && inputs.length) suggest(choose.value, inputs[0], list);
  preview();
}

function valueInput(type, operator, value, position) {
  return el("input", {
    name: "value",
    type: INPUT_TYPES[type] ?? "text",
    inputmode: type === "number" ? "decimal" : null,
    value,
    placeholder: isList(operator) ? t("filter.several") : null,
    "aria-label": position ? t("filter.value.to") : t("filter.value"),
  });
}

/** Offers the values that a column has. */
async function suggest(column, input, list) {
  if (!suggestions.has(column)) {
    suggestions.set(column, api.facets(column).then((answer) => answer.facets[column]));
  }
  try {
    const values = (await suggestions.get(column)).slice(0, MAX_SUGGESTIONS);
    list.replaceChildren(
      ...values
        .filter(({ value }) => value !== null)
        .map(({ value, count }) => el("option", { value, label: `${value} · ${count}` })),
    );
    input.setAttribute("list", list.id);
  } catch {
    suggestions.delete(column); // typing works without suggestions
  }
}
