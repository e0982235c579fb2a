// What is sent to the endpoint for a search, a moment and a judgment.

import { filesOf, hashOf } from "./files.js";

const GROUP_SIZE = 4;

/** The mode to ask for; null: the endpoint's choice. Without words there is no ranking by words. */
const modeOf = (ask, side) => (side.mode === "auto" || !ask.text ? null : side.mode);

/** Whether a side asks for a ranking by words that the query does not have. */
export const lacksWords = (ask, side) => ["lexical", "hybrid"].includes(side.mode) && !ask.text;

const queryOf = (ask, side) => ({
  text: ask.text || null,
  sample_id: ask.sample || null,
  model: side.model || null,
});

/** The body of POST /v1/search: {json}, or with a file {form}. */
export function searchBody(ask, side, filter) {
  return bodyOf(ask, {
    ...queryOf(ask, side),
    domains: ask.domains,
    k: ask.k,
    filter: filter || null,
    mode: modeOf(ask, side),
    group_by: ask.group ? "product_id" : null,
    group_size: ask.group ? GROUP_SIZE : null,
    explain: true,
  });
}

/** The body of POST /v1/samples/{id}/moment. */
export const momentBody = (ask, side) => bodyOf(ask, queryOf(ask, side));

function bodyOf(ask, fields) {
  const given = Object.entries(fields).filter(([, value]) => value !== null);
  if (!ask.file) return { json: Object.fromEntries(given) };
  const form = new FormData();
  for (const file of filesOf(ask.file)) form.append("file", file);
  for (const [name, value] of given) {
    for (const item of Array.isArray(value) ? value : [value]) form.append(name, String(item));
  }
  return { form };
}

/** The query as judgments name it. */
export async function queryKey(ask, answer) {
  return {
    text: ask.text || null,
    sample_id: ask.sample || null,
    media: ask.file ? await hashOf(ask.file) : null,
    domain: answer.query.domain,
  };
}
