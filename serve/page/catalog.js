// What the endpoint serves: its models, and the columns of its catalog. Read once, at the start.

import * as api from "./api.js";

let served = null;

/** The answer of GET /v1/index; null: it has not been read. */
export const index = () => served;

export async function readIndex() {
  served = await api.index();
  return served;
}

export const models = () => served?.models ?? [];
export const columns = () => served?.columns ?? [];

/** Column -> type. */
export const columnTypes = () => new Map(columns().map(({ name, type }) => [name, type]));
