// The flows of the app as pictures: sources at the left, what is written at the right, rates beside the arrows.
import { base, byId, element, node, put, verdict } from "./dom.js";
import { clock, count, duration, rate } from "./words.js";

const CHARACTER_PX = 7.3;
const BOX_PX = 44;
const ROW_PX = 58;
const GAP_PX = 84;
const PADDING_PX = 12;
const AGAIN_MS = 10000;
const shown = new Map();
let drawn = "";

const width = (one) => Math.max(one.title.length * CHARACTER_PX, (one.detail.length * CHARACTER_PX * 10) / 12) + 2 * PADDING_PX;

// Places of the nodes: each column to the right of all that it gets events from; each node at the height of what comes
// after it, what has nothing after it in a row of its own.
function placed(flow) {
  const after = new Map(flow.nodes.map((one) => [one.id, []]));
  const depth = new Map(flow.nodes.map((one) => [one.id, 0]));
  for (const edge of flow.edges) after.get(edge.from).push(edge.to);
  for (let i = 0; i < flow.nodes.length; i += 1) {
    let moved = false;
    for (const edge of flow.edges) {
      if (depth.get(edge.to) <= depth.get(edge.from)) {
        depth.set(edge.to, depth.get(edge.from) + 1);
        moved = true;
      }
    }
    if (!moved) break;
  }
  const columns = [];
  for (const one of flow.nodes) columns[depth.get(one.id)] = Math.max(columns[depth.get(one.id)] || 0, width(one));
  const lefts = columns.map((_, i) => columns.slice(0, i).reduce((sum, each) => sum + each + GAP_PX, 6));
  const places = new Map();
  let row = 0;
  function place(id) {
    if (places.has(id)) return places.get(id).row;
    const own = { x: lefts[depth.get(id)], row: 0 };
    places.set(id, own);
    const rows = after.get(id).filter((next) => !places.has(next)).map(place);
    own.row = rows.length ? (rows[0] + rows[rows.length - 1]) / 2 : row++;
    return own.row;
  }
  const ends = new Set(flow.edges.map((edge) => edge.to));
  flow.nodes.filter((one) => !ends.has(one.id)).forEach((one) => place(one.id));
  return { places, width: lefts[lefts.length - 1] + columns[columns.length - 1] + 6, height: row * ROW_PX + 6 };
}

function picture(flow) {
  const layout = placed(flow);
  const svg = node("svg", { role: "img", width: layout.width, height: layout.height, viewBox: `0 0 ${layout.width} ${layout.height}` });
  svg.append(node("title", {}, `Flow ${flow.name}`));
  const nodes = new Map(flow.nodes.map((one) => [one.id, one]));
  const y = (id) => 4 + layout.places.get(id).row * ROW_PX;
  const parts = flow.edges.map((edge) => {
    const x1 = layout.places.get(edge.from).x + width(nodes.get(edge.from));
    const x2 = layout.places.get(edge.to).x;
    const y1 = y(edge.from) + BOX_PX / 2;
    const y2 = y(edge.to) + BOX_PX / 2;
    const bend = x2 - GAP_PX / 2;
    const path = node("path", { class: "edge", d: `M${x1},${y1} L${x2 - GAP_PX},${y1} C${bend},${y1} ${bend},${y2} ${x2 - 7},${y2}` });
    const head = node("path", { class: "head", d: `M${x2 - 9},${y2 - 4} L${x2 - 1},${y2} L${x2 - 9},${y2 + 4} z` });
    const label = node("text", { class: "rate", x: x2 - 32, y: y2 - 6 });
    svg.append(path, head);
    return { path, label };
  });
  for (const one of flow.nodes) {
    const box = node("g", { class: one.kind });
    const x = layout.places.get(one.id).x;
    const top = y(one.id);
    box.append(node("rect", { x, y: top, width: width(one), height: BOX_PX, rx: one.kind === "step" ? 3 : 14 }), node("text", { x: x + PADDING_PX, y: top + (one.detail ? 19 : 27) }, one.title));
    if (one.detail) box.append(node("text", { class: "detail", x: x + PADDING_PX, y: top + 34 }, one.detail));
    svg.append(box);
  }
  svg.append(...parts.map((part) => part.label));
  return { svg, parts };
}

function section(flow) {
  const made = element("section", "flow");
  const title = element("h2", "", "");
  title.id = `flow-${flow.name}`;
  made.setAttribute("aria-labelledby", title.id);
  const cell = element("span");
  const words = element("small");
  title.append(document.createTextNode(flow.name), cell, words);
  const frame = element("div", "picture");
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", `Picture of ${flow.name}`);
  const { svg, parts } = picture(flow);
  frame.append(svg);
  const details = element("details");
  const table = element("table");
  const head = element("tr");
  for (const text of ["From", "To", "Events a second"]) {
    const one = element("th", "", text);
    one.scope = "col";
    head.append(one);
  }
  const lines = flow.edges.map((edge) => {
    const line = element("tr");
    line.append(element("td", "", edge.from), element("td", "", edge.to), element("td", "n"));
    return line;
  });
  table.append(head, ...lines);
  details.append(element("summary", "", `${flow.name} as a table`), table);
  made.append(title, frame, details);
  return { made, cell, words, parts, lines };
}

// Thicker the more events pass, by powers of ten.
const thickness = (value) => (value === null || value <= 0 ? 1.2 : Math.min(6, 1.6 + Math.log10(1 + value)));

function show(told) {
  const shape = JSON.stringify(told.flows.map((flow) => [flow.name, flow.nodes, flow.edges.map((edge) => [edge.from, edge.to])]));
  if (shape !== drawn) {
    drawn = shape;
    shown.clear();
    for (const flow of told.flows) shown.set(flow.name, section(flow));
    byId("flows").replaceChildren(...[...shown.values()].map((one) => one.made));
  }
  for (const flow of told.flows) {
    const one = shown.get(flow.name);
    verdict(one.cell, flow.status || "not run");
    const words = [`group ${flow.group}`];
    if (flow.status !== null) words.push(`${duration(flow.lag_s)} behind, ${count(flow.lag)} records`, flow.members === null ? "members not known" : `${count(flow.members)} ${flow.members === 1 ? "member" : "members"}`);
    put(one.words, words.join(", "));
    flow.edges.forEach((edge, i) => {
      const { path, label } = one.parts[i];
      put(label, edge.rate === null ? "" : rate(edge.rate));
      path.setAttribute("stroke-width", thickness(edge.rate).toFixed(1));
      path.classList.toggle("still", edge.rate !== null && edge.rate <= 0);
      put(one.lines[i].lastChild, edge.rate === null ? "not counted" : rate(edge.rate));
    });
  }
  put(byId("state"), told.failure ? `old offsets: ${told.failure}` : `as of ${clock(told.time)}`);
  byId("state").className = told.failure ? "stale" : "";
}

async function load() {
  let again = AGAIN_MS;
  try {
    const answer = document.hidden ? null : await fetch(`${base}/api/flows`);
    if (answer !== null) {
      const told = await answer.json();
      if (answer.ok) {
        show(told);
        again = told.interval * 1000;
      } else put(byId("state"), told.message || `the monitor answers ${answer.status}`);
    }
  } catch {
    put(byId("state"), "the monitor does not answer; trying again");
    byId("state").className = "stale";
  }
  setTimeout(load, again);
}
load();
