// The page's language: Chinese or English, by the browser's setting or the choice stored here.

import en from "./en.js";
import saidZh from "./said_zh.js";
import zh from "./zh.js";

const LANGUAGES = { en, zh };
const SAID = { en: {}, zh: saidZh }; // what the endpoint says is in English already
const STORED = "ampere-language";
const ATTRIBUTES = { tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };

let language = stored() ?? (/^zh\b/i.test(navigator.language) ? "zh" : "en");
if (!(language in LANGUAGES)) language = "en";

/** The message of a key, with `{name}` replaced by values. */
export function t(key, values = {}) {
  const message = LANGUAGES[language][key] ?? en[key] ?? key;
  return filled(message, values);
}

/** What the endpoint says ({code, values}); its English sentence if there is no translation. */
export function said({ code, values }, sentence) {
  const message = SAID[language][code];
  return message === undefined ? sentence : filled(message, values ?? {});
}

const filled = (message, values) =>
  message.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");

/** Sets the texts of elements with `data-t`, `data-t-label`, `data-t-title`, `data-t-placeholder`. */
export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const [name, attribute] of Object.entries(ATTRIBUTES)) {
    const selector = `[data-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}]`;
    for (const node of document.querySelectorAll(selector)) {
      node.setAttribute(attribute, t(node.dataset[name]));
    }
  }
}

/** Changes to the other language, and keeps it in this browser. */
export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  try {
    localStorage.setItem(STORED, language);
  } catch {
    // A browser that stores nothing asks its own setting again next time.
  }
  translate();
}

function stored() {
  try {
    return localStorage.getItem(STORED);
  } catch {
    return null;
  }
}

const locale = () => (language === "zh" ? "zh-CN" : "en");

export const number = (value) => new Intl.NumberFormat(locale()).format(value);

export const percent = (value) =>
  new Intl.NumberFormat(locale(), { style: "percent", maximumFractionDigits: 1 }).format(value);

/** Similarity or score with three digits, such as 0.910 or 0.0328. */
export const score = (value) =>
  Math.abs(value) < 0.1 && value !== 0 ? value.toPrecision(3) : value.toFixed(3);

/** Seconds as m:ss. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export const dateTime = (iso) =>
  new Date(iso).toLocaleString(locale(), { dateStyle: "medium", timeStyle: "short" });

/** An age in seconds as "3 minutes ago". */
export function ago(seconds) {
  const units = [["day", 86_400], ["hour", 3_600], ["minute", 60], ["second", 1]];
  const [unit, size] = units.find(([, length]) => seconds >= length) ?? units.at(-1);
  const format = new Intl.RelativeTimeFormat(locale(), { numeric: "auto" });
  return format.format(-Math.round(seconds / size), unit);
}
