// Copies the link of the search on the page.

import { byId, toast } from "./dom.js";
import { t } from "./i18n.js";
import { linkOf } from "./link.js";
import { readAsk } from "./query.js";

/** Connects the button. */
export function startShare() {
  byId("copy-link").addEventListener("click", copyLink);
}

/** A browser has a clipboard for pages of https and localhost; others show the link. */
async function copyLink() {
  const ask = readAsk();
  const link = new URL(linkOf(ask), location.href).href;
  try {
    await navigator.clipboard.writeText(link);
    toast(ask.file ? t("link.copied.file", { name: ask.file }) : t("link.copied"));
  } catch {
    byId("link").value = link;
    byId("link-note").textContent = ask.file ? t("link.file", { name: ask.file }) : t("link.text");
    byId("link-dialog").showModal();
    byId("link").select();
  }
}
