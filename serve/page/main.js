// Starts the page, and shows the view that the address names.

import { index, readIndex } from "./catalog.js";
import { showCoverage } from "./coverage.js";
import { startDetails } from "./details.js";
import { byId } from "./dom.js";
import { startFilter } from "./filter.js";
import { switchLanguage, t, translate } from "./i18n.js";
import { startKeys } from "./keys.js";
import { askOf, linkOf, viewOf } from "./link.js";
import { readAsk, showAsk, startQuery } from "./query.js";
import { runSearch, showAgain } from "./search.js";
import { startShare } from "./share.js";
import { showFreshness, showStatus } from "./status.js";

const VIEWS = { search: showSearch, coverage: showCoverage, index: showStatus };

/** Searches, and puts the search into the address; there, Back and a link find it. */
function search(ask) {
  const link = linkOf(ask);
  if (location.hash === link) runSearch(ask, search);
  else location.hash = link; // leads to `route`
}

function showSearch() {
  const ask = askOf(location.hash);
  document.title = [ask.text || ask.sample || ask.file, "ampere"].filter(Boolean).join(" – ");
  // A form that shows the search already keeps its focus.
  if (JSON.stringify(readAsk()) !== JSON.stringify(ask)) showAsk(ask);
  runSearch(ask, search);
}

async function route() {
  document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
  const view = viewOf(location.hash) in VIEWS ? viewOf(location.hash) : "search";
  for (const name of Object.keys(VIEWS)) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(`nav.${view}`)} – ampere`;
  if (!index()) {
    await readIndex().catch(() => null); // the view itself says what is wrong
    showFreshness();
    showAsk(askOf(location.hash)); // with the models and columns that are served
  }
  VIEWS[view]();
}

function showLanguage() {
  byId("language").textContent = t("language");
  byId("language").setAttribute("aria-label", t("language.label"));
  showFreshness();
}

async function start() {
  translate();
  startQuery(search);
  startFilter();
  startDetails();
  startKeys();
  startShare();
  byId("language").addEventListener("click", () => {
    const ask = readAsk();
    switchLanguage();
    showLanguage();
    showAsk(ask);
    if (!byId("view-search").hidden && byId("results").childElementCount) showAgain();
    else route();
  });
  byId("skip").addEventListener("click", (event) => {
    event.preventDefault(); // its hash is no view
    byId("words").focus();
  });
  showLanguage();
  addEventListener("hashchange", route);
  await route();
  document.body.dataset.ready = "true";
}

start();
