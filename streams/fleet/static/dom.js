// Elements of the page: found, made, and written only where they change.
export const byId = (id) => document.getElementById(id);

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text) made.textContent = text;
  return made;
}

const SVG = "http://www.w3.org/2000/svg";
export function drawing(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  return made;
}

// Rows of a table body, kept by key; `make` makes a new one. In the order of `keys`.
export function rows(body, keys, make) {
  const known = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = keys.map((key) => {
    const row = known.get(key) ?? make(key);
    row.dataset.key = key;
    known.delete(key);
    return row;
  });
  for (const row of known.values()) row.remove();
  wanted.forEach((row, at) => {
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  });
  return wanted;
}

let saying = 0;
// Say something to who hears the page.
export function say(text) {
  clearTimeout(saying);
  saying = setTimeout(() => put(byId("said"), text), 100);
}
