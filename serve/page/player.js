// Plays a clip at the moment that fits the query.

import * as api from "./api.js";
import { el } from "./dom.js";
import { clock, score, t } from "./i18n.js";
import { momentBody } from "./request.js";

/**
 * The moment of a clip: {at_s, frame, by, text, similarity}; null: there is no query.
 *
 * The segment of a hit's speech that names what was asked for comes first; else the endpoint looks
 * for the frame nearest to the query.
 */
export async function momentOf(hit, place) {
  if (!place) return null;
  if (hit.moment) {
    const { start_s: at, text } = hit.moment;
    return { at_s: at, frame: null, by: "transcript", text, similarity: null };
  }
  return api.moment(hit.sample_id, momentBody(place.ask, place.side));
}

/** What a moment is, in words. */
export function momentText(moment) {
  if (!moment) return t("player.start");
  const time = clock(moment.at_s);
  if (moment.by === "transcript" && moment.text) return t("player.said", { time, text: moment.text });
  if (moment.similarity === null) return t("player.frame", { time });
  return t("player.frame.similarity", { time, similarity: score(moment.similarity) });
}

/** A video element; onBroken is called if the browser cannot play it. */
export function player({ url }, poster, onBroken) {
  const video = el("video", { controls: true, playsinline: true, preload: "auto", poster, src: url });
  video.addEventListener("error", onBroken);
  return video;
}

/** Seeks a video, as soon as its length is known, and plays it. */
export function playAt(video, seconds) {
  const seek = () => {
    video.currentTime = Math.min(seconds, Math.max(0, (video.duration || Infinity) - 0.1));
    video.play().catch(() => {}); // the browser may want a click first
  };
  if (video.readyState >= HTMLMediaElement.HAVE_METADATA) seek();
  else video.addEventListener("loadedmetadata", seek, { once: true });
}
