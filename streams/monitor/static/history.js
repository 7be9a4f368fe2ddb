// Lag and throughput of the chosen group, or of one partition of it, over minutes to months, with what happened meanwhile.
import { Chart, moment } from "./chart.js";
import { base, byId, element, put } from "./dom.js";
import { count, duration, rate } from "./words.js";

const RANGES = [["15 min", 900], ["1 h", 3600], ["6 h", 21600], ["24 h", 86400], ["7 d", 604800], ["30 d", 2592000]];
const AGAIN_MS = 5000;
const OLD_AGAIN_MS = 60000;
const NEW_S = 3600;
let asked = null; // { group, topic, partition }
let seconds = 3600;
let timer = null;
let number = 0;

const charts = [
  new Chart(byId("chart-lag-s"), "Lag in seconds", duration, [{ name: "lag_s", label: "behind", kind: "one" }]),
  new Chart(byId("chart-lag"), "Lag in records", count, [{ name: "lag", label: "records", kind: "one" }]),
  new Chart(byId("chart-rates"), "Throughput", rate, [
    { name: "arrive", label: "arrived", kind: "two" },
    { name: "consume", label: "consumed", kind: "one" },
  ]),
];

export function showHistory(group, partition = null) {
  const wanted = { group, topic: partition && partition.topic, partition: partition && partition.number };
  if (asked !== null && JSON.stringify(wanted) === JSON.stringify(asked)) return;
  asked = wanted;
  put(byId("history-title"), partition ? `History of ${partition.topic}-${partition.number} in ${group}` : `History of ${group}`);
  byId("history-whole").hidden = partition === null;
  for (const chart of charts) chart.show(null);
  load();
}

async function load() {
  clearTimeout(timer);
  if (asked === null) return;
  const mine = ++number;
  const query = new URLSearchParams({ group: asked.group, seconds: String(seconds) });
  if (asked.topic !== null) {
    query.set("topic", asked.topic);
    query.set("partition", String(asked.partition));
  }
  try {
    const answer = document.hidden ? null : await fetch(`${base}/api/history?${query}`);
    if (mine !== number) return;
    if (answer !== null) show(answer.ok ? await answer.json() : null, answer.status, query.toString());
  } catch {
    if (mine !== number) return;
    put(byId("history-note"), "The monitor does not answer; trying again.");
  }
  if (mine === number) timer = setTimeout(load, seconds <= NEW_S ? AGAIN_MS : OLD_AGAIN_MS);
}

function show(told, status, key) {
  if (told === null) {
    for (const chart of charts) chart.show(null);
    put(byId("history-note"), status === 404 ? "There is no history of it yet." : `The monitor answers ${status}; trying again.`);
    return;
  }
  told.key = key;
  for (const chart of charts) chart.show(told);
  const since = told.since === null ? "" : `since ${moment(told.since)}`;
  const origin = told.source === "prometheus" ? "From Prometheus." : told.since !== null && told.since > told.start + told.step ? `Remembered ${since}.` : "";
  put(byId("history-note"), [told.problem && `${told.problem}.`, origin, `A point is ${duration(told.step / 1000)}.`].filter(Boolean).join(" "));
  showAnnotations(told.annotations);
}

function showAnnotations(annotations) {
  const list = byId("history-events");
  const text = JSON.stringify(annotations);
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...annotations.slice().reverse().map((one) => {
    const item = element("li");
    item.append(element("span", `kind of-${one.kind}`, one.kind), document.createTextNode(` ${moment(one.time)}: ${one.text}`));
    return item;
  }));
}

byId("history-ranges").replaceChildren(...RANGES.map(([label, length]) => {
  const button = element("button", "", label);
  button.type = "button";
  button.setAttribute("aria-pressed", String(length === seconds));
  button.addEventListener("click", () => {
    seconds = length;
    for (const one of byId("history-ranges").children) one.setAttribute("aria-pressed", String(one === button));
    load();
  });
  return button;
}));
byId("history-whole").addEventListener("click", () => asked && showHistory(asked.group));
document.addEventListener("visibilitychange", () => document.hidden || load());
