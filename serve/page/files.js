// Files that were dropped, pasted or chosen. They are kept until the page is left, so that the
// browser's Back repeats a search by file, too.

import { sha256 } from "./sha256.js";

const kept = new Map(); // name -> File[]; several pictures are the frames of one clip
const urls = new Map(); // name -> object URL of the first
const hashes = new Map(); // name -> promise of a SHA-256

const isSame = (one, other) =>
  one.length === other.length &&
  one.every((file, i) => file.size === other[i].size && file.lastModified === other[i].lastModified);

/** Keep files under a name of their own; returns the name. */
export function keep(files) {
  const [stem, ending] = files[0].name.split(/(\.\w+)$/);
  let name = files[0].name;
  for (let n = 2; kept.has(name) && !isSame(kept.get(name), files); n += 1) {
    name = `${stem} (${n})${ending ?? ""}`;
  }
  kept.set(name, files);
  return name;
}

/** The files of a name; empty: they were dropped in another page. */
export const filesOf = (name) => kept.get(name) ?? [];

/** An address to show the first file of a name by. */
export function previewUrl(name) {
  if (!urls.has(name)) urls.set(name, URL.createObjectURL(filesOf(name)[0]));
  return urls.get(name);
}

/** SHA-256 of the files of a name, one after the other, as hex. */
export function hashOf(name) {
  if (!hashes.has(name)) {
    hashes.set(name, new Blob(filesOf(name)).arrayBuffer().then((bytes) => sha256(bytes)));
  }
  return hashes.get(name);
}
