// Errors as the user reads them: what happened, what to do, and the request id.

import { Problem } from "./api.js";
import { el } from "./dom.js";
import { said, t } from "./i18n.js";

const KNOWN = [0, 400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503];
const WAIT_S = 5; // where the endpoint does not say how long

/** The heading of an error, and what to do about it. */
function wording(problem) {
  const key = keyOf(problem);
  if (!key) return { title: t("error.title"), advice: "" };
  const advice = t(`${key}.do`, { seconds: problem.retryAfter ?? WAIT_S });
  return { title: t(key), advice: advice === `${key}.do` ? "" : advice };
}

function keyOf(problem) {
  if (problem.status === 422 && isAbout(problem, "file")) return "error.422.file";
  if (isAboutFilter(problem)) return "error.422.filter";
  if (KNOWN.includes(problem.status)) return `error.${problem.status}`;
  return problem.status > 500 ? "error.500" : null;
}

const isAbout = ({ errors, detail }, field) =>
  errors.some(({ where }) => where.split(".").includes(field)) || detail.startsWith(`${field}:`);

/** Whether an error says that the filter is wrong. */
export const isAboutFilter = (problem) =>
  problem instanceof Problem && problem.status === 422 && isAbout(problem, "filter");

/** What came, what was expected, and what is wrong with fields, in the page's language. */
function details(problem) {
  const detail = said(problem, problem.detail);
  const fields = problem.errors
    .filter(({ message }) => !detail.includes(message))
    .map((field) => `${field.where}: ${said(field, field.message)}`);
  return [detail, ...fields];
}

/** An error in one line. */
export function problemText(error) {
  if (!(error instanceof Problem)) return String(error.message ?? error);
  return `${wording(error).title}: ${details(error).join("; ")}`;
}

/** An error as a panel with a button that tries again. */
export function problemView(error, retry) {
  if (!(error instanceof Problem)) {
    return panel(t("error.title"), [String(error.message ?? error)], retry);
  }
  const { title, advice } = wording(error);
  const id = error.requestId && t("error.request", { id: error.requestId });
  return panel(title, details(error), retry, advice, id);
}

function panel(title, lines, retry, advice = "", id = "") {
  return el(
    "div",
    { class: "panel problem", role: "alert" },
    el("h2", {}, title),
    advice ? el("p", { class: "advice" }, advice) : null,
    lines.map((line) => el("p", { class: "detail" }, line)),
    id ? el("p", { class: "request-id" }, id) : null,
    retry ? el("button", { type: "button", class: "button", onclick: retry }, t("retry")) : null,
  );
}
