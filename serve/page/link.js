// A search as a link: everything that was asked for is in the hash, except an uploaded file.

export const DOMAINS = ["page", "short", "live"];
export const MODES = ["auto", "vector", "lexical", "hybrid"];
const FIRST_K = 12;
const MAX_K = 100;

/**
 * What the page asks for.
 *
 * text, sample (id), file (name of an upload): the query. conditions ([column, operator, ...values])
 * and sql: the filter. sides: one {model, mode}, or two to compare; model "" is the first one.
 */
export const emptyAsk = () => ({
  text: "",
  sample: "",
  file: "",
  conditions: [],
  sql: "",
  domains: [...DOMAINS],
  group: true,
  k: FIRST_K,
  sides: [{ model: "", mode: "auto" }],
});

export const hasQuery = (ask) => Boolean(ask.text || ask.sample || ask.file);

/** The same search with more hits; null: there are no more. */
export const withMore = (ask) => (ask.k < MAX_K ? { ...ask, k: Math.min(MAX_K, ask.k * 2) } : null);

/** The hash of a search; values that are not set are left out. */
export function linkOf(ask) {
  const link = new URLSearchParams();
  const put = (name, value, unless) => value !== unless && link.append(name, value);
  put("text", ask.text, "");
  put("like", ask.sample, "");
  put("file", ask.file, "");
  for (const condition of ask.conditions) link.append("where", JSON.stringify(condition));
  put("filter", ask.sql, "");
  put("domains", ask.domains.join(","), DOMAINS.join(","));
  put("group", ask.group ? "1" : "0", "1");
  put("k", String(ask.k), String(FIRST_K));
  put("model", ask.sides[0].model, "");
  put("mode", ask.sides[0].mode, "auto");
  if (ask.sides[1]) {
    link.append("model2", ask.sides[1].model);
    link.append("mode2", ask.sides[1].mode);
  }
  const query = String(link);
  return query ? `#/search?${query}` : "#/search";
}

/** The search of a hash; what is invalid in it is ignored. */
export function askOf(hash) {
  const link = new URLSearchParams(hash.split("?").slice(1).join("?"));
  const ask = emptyAsk();
  ask.text = link.get("text") ?? "";
  ask.sample = link.get("like") ?? "";
  ask.file = link.get("file") ?? "";
  ask.conditions = link.getAll("where").map(conditionOf).filter(Boolean);
  ask.sql = link.get("filter") ?? "";
  if (link.has("domains")) {
    ask.domains = DOMAINS.filter((domain) => link.get("domains").split(",").includes(domain));
  }
  ask.group = link.get("group") !== "0";
  ask.k = Math.min(MAX_K, Math.max(1, Math.floor(Number(link.get("k"))) || FIRST_K));
  ask.sides = [sideOf(link, "model", "mode")];
  if (link.has("mode2")) ask.sides.push(sideOf(link, "model2", "mode2"));
  return ask;
}

/** The view that a hash names. */
export const viewOf = (hash) => hash.match(/^#\/(\w+)/)?.[1] ?? "search";

function sideOf(link, model, mode) {
  const named = link.get(mode);
  return { model: link.get(model) ?? "", mode: MODES.includes(named) ? named : "auto" };
}

function conditionOf(json) {
  try {
    const parts = JSON.parse(json);
    return Array.isArray(parts) && parts.every((part) => typeof part === "string") ? parts : null;
  } catch {
    return null;
  }
}
