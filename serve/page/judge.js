// Thumbs up and down, stored as judgments.

import * as api from "./api.js";
import { el, iconButton, toast } from "./dom.js";
import { t } from "./i18n.js";
import { problemText } from "./problems.js";
import { queryKey } from "./request.js";

const given = new Map(); // judged hit -> grade, so that a search shown again shows them

/**
 * The two buttons of a hit.
 *
 * place: {ask, answer, rank, rival} of the hit; rival: {model, mode, rank} of the other side or
 * null.
 */
export function thumbs(hit, place) {
  const { ask, answer } = place;
  const query = [ask.text, ask.sample, ask.file];
  const judged = JSON.stringify([query, hit.sample_id, answer.model, answer.mode]);
  const button = (name, label, grade) => {
    const give = () => judge(judged, grade, hit, place);
    return iconButton(name, label, give, { "data-grade": grade, "data-key": grade > 0 ? "+" : "-" });
  };
  const buttons = [button("up", t("hit.good"), 1), button("down", t("hit.bad"), -1)];
  const box = el("span", { class: "thumbs", "data-judged": judged }, buttons);
  showGrade(box);
  return box;
}

async function judge(judged, grade, hit, { ask, answer, rank, rival }) {
  const before = given.get(judged);
  if (before === grade) return;
  setGrade(judged, grade);
  try {
    const query = await queryKey(ask, answer);
    const { model, mode } = answer;
    await api.judge({ query, sample_id: hit.sample_id, model, mode, rank, grade, rival });
    toast(t("hit.judged"));
  } catch (error) {
    setGrade(judged, before);
    toast(problemText(error));
  }
}

/** Shows a grade wherever the hit is: in the results and in its dialog. */
function setGrade(judged, grade) {
  given.set(judged, grade);
  for (const box of document.querySelectorAll(".thumbs")) {
    if (box.dataset.judged === judged) showGrade(box);
  }
}

function showGrade(box) {
  const grade = String(given.get(box.dataset.judged));
  for (const button of box.children) {
    button.setAttribute("aria-pressed", String(button.dataset.grade === grade));
  }
}
