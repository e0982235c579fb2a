// Conditions on columns as SQL, in the subset that the endpoint takes (docs/guides/search.md).

const NO_VALUE = { missing: "IS NULL", present: "IS NOT NULL" };

/** Operators of each column type. */
export const OPERATORS = {
  string: ["=", "!=", "contains", "in", "missing", "present"],
  number: ["=", "!=", "<", "<=", ">", ">=", "between", "missing", "present"],
  boolean: ["true", "false", "missing", "present"],
  timestamp: ["since", "before", "missing", "present"],
  strings: ["has", "has-any", "has-all", "missing", "present"],
};

/** How many values an operator takes: 0, 1 or 2. */
export function valuesOf(operator) {
  if (operator in NO_VALUE || operator === "true" || operator === "false") return 0;
  return operator === "between" ? 2 : 1;
}

export const isList = (operator) => ["in", "has-any", "has-all"].includes(operator);

const name = (column) => `"${column.replaceAll('"', '""')}"`;
const text = (value) => `'${value.replaceAll("'", "''")}'`;
const pattern = (value) => text(`%${value.replace(/[\\%_]/g, "\\$&")}%`);
const items = (value) => value.split(/[,，、]/).map((item) => item.trim()).filter(Boolean);

/** A number as it was typed, without separators of thousands; null: it is none. */
function numberOf(value) {
  const isGrouped = /^-?\d{1,3}([,，]\d{3})+(\.\d+)?$/.test(value.trim());
  const typed = isGrouped ? value.replace(/[,，]/g, "").trim() : value.trim();
  return typed && Number.isFinite(Number(typed)) ? String(Number(typed)) : null;
}

/** A local date and time as UTC; null: it is none. */
function timeOf(value) {
  const time = new Date(value);
  return value && !Number.isNaN(time.getTime()) ? text(time.toISOString()) : null;
}

/**
 * One condition as SQL; null: it is not complete.
 *
 * conditionSql("string", ["category", "=", "tea"]) is `"category" = 'tea'`.
 */
export function conditionSql(type, [column, operator, ...values]) {
  const left = name(column);
  if (operator in NO_VALUE) return `${left} ${NO_VALUE[operator]}`;
  if (type === "boolean") return `${left} = ${operator.toUpperCase()}`;
  const [first = "", second = ""] = values;
  if (type === "number") return numberSql(left, operator, first, second);
  if (type === "timestamp") {
    const time = timeOf(first);
    return time && `${left} ${operator === "since" ? ">=" : "<"} ${time}`;
  }
  if (!first.trim()) return null;
  if (isList(operator)) return listSql(left, operator, items(first));
  if (operator === "has") return `array_has(${left}, ${text(first)})`;
  if (operator === "contains") return `${left} LIKE ${pattern(first)}`;
  return `${left} ${operator} ${text(first)}`;
}

function numberSql(left, operator, first, second) {
  const low = numberOf(first);
  if (low === null) return null;
  if (operator !== "between") return `${left} ${operator} ${low}`;
  const high = numberOf(second);
  return high === null ? null : `${left} BETWEEN ${low} AND ${high}`;
}

function listSql(left, operator, values) {
  if (!values.length) return null;
  const list = values.map(text).join(", ");
  if (operator === "in") return `${left} IN (${list})`;
  return `array_${operator.replace("-", "_")}(${left}, [${list}])`;
}

/**
 * The filter of a search: all of the conditions, and the expert's own.
 *
 * types: column -> type. A condition on an unknown column is taken for one on a text.
 */
export function filterSql(conditions, sql, types) {
  const parts = conditions
    .map((condition) => conditionSql(types.get(condition[0]) ?? "string", condition))
    .filter(Boolean);
  if (sql.trim()) parts.push(parts.length ? `(${sql.trim()})` : sql.trim());
  return parts.join(" AND ");
}
