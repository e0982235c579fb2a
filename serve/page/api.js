// Calls of the endpoint. A failed call throws a Problem; a missing key is asked for once.

import { byId } from "./dom.js";
import { said, t } from "./i18n.js";

/** An error answer (application/problem+json). Status 0: the endpoint cannot be reached. */
export class Problem extends Error {
  constructor(status, { detail, code, values, request_id: requestId, errors }, retryAfter) {
    super(detail);
    const sentence = { detail, code, values };
    Object.assign(this, { status, ...sentence, requestId, retryAfter, errors: errors ?? [] });
  }
}

/** Send a request: `json` or `form` is its body; returns the answer's JSON. */
export async function call(path, { method, json, form, signal } = {}) {
  const body = form ?? (json && JSON.stringify(json));
  const headers = json ? { "content-type": "application/json" } : {};
  const request = { method: method ?? (body ? "POST" : "GET"), headers, body, signal };
  const response = await reach(path, request);
  if (response.ok) return response.status === 204 ? null : response.json();
  if (response.status === 401 && (await askForKey())) {
    return call(path, { method, json, form, signal });
  }
  throw await problemOf(response);
}

async function reach(path, request) {
  try {
    return await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: String(error.message ?? error) });
  }
}

async function problemOf(response) {
  const isJson = response.headers.get("content-type")?.includes("json");
  const body = isJson ? await response.json().catch(() => ({})) : {};
  return new Problem(
    response.status,
    {
      ...body,
      detail: body.detail ?? body.title ?? `status ${response.status} ${response.statusText}`,
      request_id: body.request_id ?? response.headers.get("x-request-id"),
    },
    Number(response.headers.get("retry-after")) || null,
  );
}

let asking = null;

/** Asks for an API key until the endpoint accepts one; false: the user gave up. */
function askForKey() {
  asking ??= keyFromDialog().finally(() => (asking = null));
  return asking;
}

function keyFromDialog() {
  const dialog = byId("key-dialog");
  const input = byId("key");
  byId("key-error").textContent = input.value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue === "accepted");
    dialog.returnValue = "";
    byId("key-cancel").onclick = () => dialog.close("");
    byId("key-form").onsubmit = async (event) => {
      event.preventDefault();
      const headers = { authorization: `Bearer ${input.value}` };
      try {
        const answer = await reach("/v1/session", { method: "POST", headers });
        if (answer.ok) return dialog.close("accepted");
        const problem = await problemOf(answer);
        byId("key-error").textContent =
          answer.status === 401 ? t("key.wrong") : said(problem, problem.detail);
      } catch (error) {
        byId("key-error").textContent = `${t("error.0")}: ${error.message}`;
      }
      input.select();
    };
  });
}

const sampleUrl = (id) => `/v1/samples/${encodeURIComponent(id)}`;

export const search = (body, signal) => call("/v1/search", { ...body, signal });
export const moment = (id, body) => call(`${sampleUrl(id)}/moment`, body);
export const sample = (id) => call(sampleUrl(id));
export const frames = (id) => call(`${sampleUrl(id)}/frames`);
export const frameUrl = (id, n = 0) => `${sampleUrl(id)}/frames/${n}`;
export const facets = (column) => call("/v1/facets", { json: { columns: [column] } });
export const index = () => call("/v1/index");
export const coverage = (model) => call(`/v1/coverage?${new URLSearchParams({ model, limit: 100 })}`);
export const failures = () => call("/v1/failures?limit=100");
export const judge = (judgment) => call("/v1/judgments", { json: judgment });
export const withdraw = (id) => call(`/v1/judgments/${id}`, { method: "DELETE" });
