// Elements of the page. Data enters the document as text and attributes only, never as HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children (nodes or texts). */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A symbol of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export function iconButton(name, label, onclick, attributes = {}) {
  const button = { type: "button", class: "icon-button", title: label, "aria-label": label };
  return el("button", { ...button, onclick, ...attributes }, icon(name));
}

/** A `<select>` of [value, label] pairs. */
export function select(options, value, attributes = {}) {
  const node = el(
    "select",
    attributes,
    options.map(([name, label]) => el("option", { value: name }, label)),
  );
  if (options.some(([name]) => name === value)) node.value = value;
  return node;
}

/** Tells a screen reader. */
export function announce(text) {
  byId("announce").textContent = text;
}

let toastTimer;

/** Shows a message for a few seconds, and tells a screen reader. */
export function toast(text) {
  const node = byId("toast");
  node.textContent = text;
  node.hidden = false;
  announce(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (node.hidden = true), 5000);
}
