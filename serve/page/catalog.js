// What the endpoint serves: its models, and the columns of its catalog. Read once, at the start.

import * as api from "./api.js";

let served; // undefined: not asked for yet; null: the endpoint did not answer

/** The answer of GET /v1/index; undefined or null: there is none. */
export const index = () => served;

export async function readIndex() {
  served ??= null;
  served = await api.index();
  return served;
}

export const models = () => served?.models ?? [];
export const columns = () => served?.columns ?? [];

/** Column -> type. */
export const columnTypes = () => new Map(columns().map(({ name, type }) => [name, type]));
