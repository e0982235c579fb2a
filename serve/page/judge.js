// Thumbs up and down, stored as judgments. A second press on the same thumb takes them back.

import * as api from "./api.js";
import { el, iconButton, toast } from "./dom.js";
import { t } from "./i18n.js";
import { problemText } from "./problems.js";
import { queryKey } from "./request.js";

// Judged hit -> its state, see `stateOf`, so that a search shown again shows its thumbs.
const states = new Map();

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
    const give = () => press(judged, grade, hit, place);
    return iconButton(name, label, give, { "data-grade": grade, "data-key": grade > 0 ? "+" : "-" });
  };
  const buttons = [button("up", t("hit.good"), 1), button("down", t("hit.bad"), -1)];
  const box = el("span", { class: "thumbs", "data-judged": judged }, buttons);
  showGrade(box);
  return box;
}

/** Shows a press at once; requests for one hit follow each other in the order of the presses. */
function press(judged, grade, hit, place) {
  const state = stateOf(judged);
  const wanted = state.grade === grade ? null : grade;
  setGrade(judged, wanted);
  state.waiting += 1;
  state.work = state.work
    .then(() => (wanted ? store(state, wanted, hit, place) : withdraw(state)))
    .then(() => toast(t(wanted ? "hit.judged" : "hit.withdrawn")))
    .catch((error) => toast(problemText(error)))
    .finally(() => {
      state.waiting -= 1;
      if (!state.waiting) setGrade(judged, state.stored);
    });
}

function stateOf(judged) {
  // grade: shown; stored, ids: at the endpoint; work: of all presses, of which `waiting` are left.
  const nothing = { grade: null, stored: null, ids: [], work: Promise.resolve(), waiting: 0 };
  if (!states.has(judged)) states.set(judged, nothing);
  return states.get(judged);
}

async function store(state, grade, hit, { ask, answer, rank, rival }) {
  const query = await queryKey(ask, answer);
  const { model, mode } = answer;
  const judgment = { query, sample_id: hit.sample_id, model, mode, rank, grade, rival };
  state.ids.push((await api.judge(judgment)).judgment_id);
  state.stored = grade;
}

/** Takes all of the hit's judgments back, the newest last: it counts until then. */
async function withdraw(state) {
  while (state.ids.length) {
    await api.withdraw(state.ids[0]).catch(unlessGone);
    state.ids.shift();
  }
  state.stored = null;
}

function unlessGone(error) {
  if (error.status !== 404) throw error;
}

/** Shows a grade wherever the hit is: in the results and in its dialog. */
function setGrade(judged, grade) {
  stateOf(judged).grade = grade;
  for (const box of document.querySelectorAll(".thumbs")) {
    if (box.dataset.judged === judged) showGrade(box);
  }
}

function showGrade(box) {
  const grade = String(states.get(box.dataset.judged)?.grade);
  for (const button of box.children) {
    button.setAttribute("aria-pressed", String(button.dataset.grade === grade));
  }
}
