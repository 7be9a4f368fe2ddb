// Writing to a page only what has changed.
import { count } from "./words.js";

// Path of the pages of this cluster: empty for the first one.
export const base = document.documentElement.dataset.base;
export const byId = (id) => document.getElementById(id);
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
export function element(name, className, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}
// An element of an SVG drawing.
export function node(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
export function verdict(cell, word) {
  if (cell.firstChild === null) cell.append(element("span", "v"));
  if (cell.firstChild.textContent !== word) {
    cell.firstChild.textContent = word;
    cell.firstChild.className = "v " + word;
  }
}
export function spark(cell, values) {
  const top = Math.max(...values, 0);
  const points = values.length < 2 || top === 0
    ? "0,21 120,21"
    : values.map((v, i) => `${((i * 120) / (values.length - 1)).toFixed(1)},${(21 - (20 * v) / top).toFixed(1)}`).join(" ");
  if (cell.firstChild === null) {
    const svg = node("svg", { class: "spark", viewBox: "0 0 120 22", preserveAspectRatio: "none", role: "img" });
    svg.append(node("polyline", {}));
    cell.append(svg);
  }
  const line = cell.firstChild.firstChild;
  if (line.getAttribute("points") !== points) {
    line.setAttribute("points", points);
    cell.firstChild.setAttribute("aria-label", `records behind: ${count(values[0])} to ${count(values[values.length - 1])}, at most ${count(top)}`);
  }
}
// Rows by key, in the order given; rows that are no longer there go.
export function rows(body, keys, make) {
  const known = body.rowsByKey || (body.rowsByKey = new Map());
  let place = body.firstElementChild;
  const found = keys.map((key) => {
    let row = known.get(key);
    if (!row) {
      row = make(key);
      known.set(key, row);
    }
    if (row === place) place = place.nextElementSibling;
    else body.insertBefore(row, place);
    return row;
  });
  const wanted = new Set(keys);
  for (const [key, row] of known) {
    if (!wanted.has(key)) {
      row.remove();
      known.delete(key);
    }
  }
  return found;
}
export function cells(classes) {
  const row = element("tr");
  for (const name of classes) row.append(element("td", name));
  return row;
}
