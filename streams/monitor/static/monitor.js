// The page of the monitor. The server sends an overview and the chosen group's partitions at each round; rows are kept
// and only what has changed is written, so that 1,000 partitions cost a few milliseconds.
import { base, byId, cells, element, put, rows, spark, verdict } from "./dom.js";
import { showHistory } from "./history.js";
import { clock, count, duration, rate } from "./words.js";

const HISTORY_MAX = 60;
const ALARMS_MAX = 8;
const DEAD_LETTERS_MANY = 100;
const KINDS = ["", "warn", "ok"];
const RUNBOOKS = { WARN: "lag-growing", ERR: "records-lost", STOP: "no-progress", STALL: "no-progress", REWIND: "lag-rewind" };
const RUNBOOKS_BY_REASON = {
  open_transaction: "open-transaction", not_in_layout: "partitions-not-consumed", offset_not_of_state: "worker-not-ready", flapping: "group-flapping",
};
const QUIET_MIN_S = 20;
const QUIET_FIRST_S = 60;
const AGAIN_MS = [1000, 2000, 5000, 10000];
let source = null;
let chosen = groupOfHash();
let historyOf = null;
let overview = null;
let heardAt = 0;
let waited = 0;
let openedAt = 0;
let failures = 0;
let again = null;
const histories = new Map();

// The group that the address names; null: none. What is no escaped text, or names a part of the page, is none.
function groupOfHash() {
  const text = location.hash.slice(1);
  if (!text || text === "groups-title") return null;
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

// --- the overview --------------------------------------------------------------------------------------------------
function showOverview(told) {
  overview = told;
  heardAt = Date.now();
  put(byId("cluster"), told.cluster);
  if (chosen === null && told.groups.length) choose(told.groups[0].group, false);
  showTitle(told);
  showState();
  showAlarms(told);
  showGrowths(told.growths);
  showFigures(told);
  showGroups(told.groups);
  showSources(told.sources);
  showSinks(told.sinks);
  showWorkers(told.workers);
}
function showTitle(told) {
  const left = told.groups_total - told.groups.length;
  put(byId("groups-title"), left > 0 ? `Consumer groups: the worst ${told.groups.length} of ${count(told.groups_total)}` : "Consumer groups");
  if (chosen === null || left > 0) return;
  const there = told.groups.some((one) => one.group === chosen);
  put(byId("partitions-title"), there ? `Partitions of ${chosen}` : `Partitions of ${chosen}: there is no such group`);
  if (!there) rows(byId("partitions").tBodies[0], [], () => null);
}
function showState() {
  const state = byId("state");
  if (overview === null) {
    if (++waited % 3 === 0) fetch(`${base}/readyz`).then((answer) => answer.text()).then((why) => overview === null && put(state, why.trim() === "ok" ? "connecting" : why.trim()), () => put(state, "the monitor does not answer"));
    return;
  }
  const quiet = (Date.now() - heardAt) / 1000;
  const late = quiet > 3 * overview.interval + 5;
  let text = `as of ${clock(overview.time - overview.age * 1000)}`;
  if (overview.failure) text = `offsets are ${duration(overview.age)} old: ${overview.failure}`;
  if (late) text = `no news for ${duration(quiet)}: is the monitor running? Trying again`;
  put(state, text);
  state.className = late || overview.failure ? "stale" : "";
}
function showAlarms(told) {
  const alarms = [];
  for (const one of told.missing_topics) {
    alarms.push({ kind: "", head: `MISSING ${one.topic}`, text: one.why, advice: one.advice, runbook: "topic-missing" });
  }
  for (const group of told.groups) {
    if (group.status === "OK" || group.status === "NOTFOUND") continue;
    const worst = Object.keys(group.verdicts).filter((word) => word !== "OK" && word !== "NOTFOUND").sort((a, b) => RANK[b] - RANK[a])[0];
    alarms.push({
      kind: group.status === "WARN" ? "warn" : "",
      head: `${worst} ${group.group}`,
      group: group.group,
      text: `${group.worst}${group.since ? `, since ${clock(group.since)}` : ""}`,
      advice: group.advice,
      runbook: RUNBOOKS_BY_REASON[group.reason] || RUNBOOKS[worst],
    });
  }
  for (const one of told.growths) {
    if (one.stands_still) alarms.push({ kind: one.phase === "begun" ? "" : "warn", head: `GROWTH STANDS STILL ${one.flow}`, text: `for ${duration(one.still_s)}: ${one.waits}`, advice: "", runbook: "growth-stands-still" });
  }
  for (const one of told.sources) {
    if (one.silent) alarms.push({ kind: "", head: `SILENT ${one.source}`, text: one.why, advice: "ask who sends: is it the gateway, the network, or the night?", runbook: "source-silent" });
    else if (one.recovered) alarms.push({ kind: "ok", head: one.source, text: one.why, advice: "", runbook: null });
  }
  for (const one of told.workers) {
    if (!one.ready && one.owns === null) alarms.push({ kind: "warn", head: `NOT READY ${one.worker}`, text: one.state, advice: "", runbook: one.state.includes(" are not consumed: ") ? "partitions-not-consumed" : "worker-not-ready" });
  }
  for (const one of told.sinks) {
    if (!one.ready) alarms.push({ kind: "warn", head: `SINK STALLED ${one.sink || one.process}`, text: `${one.process}: ${one.state}`, advice: "", runbook: "sink-stalled" });
  }
  if (told.slo.budget_left < 0) alarms.push({ kind: "warn", head: "SLO", text: "fewer than 99% of events were visible within 60 s of their arrival since watching began", advice: "", runbook: "slo-burn" });
  for (const one of told.dead_letters) {
    if (one.grown >= DEAD_LETTERS_MANY) alarms.push({ kind: "warn", head: `DEAD LETTERS ${one.topic}`, text: `${count(one.grown)} more within ${duration(one.grown_s)}`, advice: "", runbook: "reject-share" });
  }
  alarms.sort((a, b) => KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind));
  const list = byId("alarm-list");
  const text = JSON.stringify(alarms);
  const more = alarms.length - ALARMS_MAX;
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...(alarms.length ? alarms.slice(0, ALARMS_MAX).map(alarmItem) : [element("li", "ok", "Nothing.")]));
  if (more > 0) list.append(element("li", "", `and ${more} more, in the tables below`));
  put(byId("alarms-title"), alarms.some((one) => one.kind !== "ok") ? "What is wrong" : "What is wrong: nothing");
  document.title = (alarms.filter((one) => one.kind !== "ok").length || "") + (alarms.some((one) => one.kind !== "ok") ? " · " : "") + "streams monitor";
}
// Flows that are grown in place: what each waits for, and its partitions with those that take keys over from them.
const STATES = { none: "not yet", ready: "ready", cut: "has given its keys away", settled: "settled", adopted: "has its state", cleared: "done" };
function showGrowths(growths) {
  const list = byId("growth-list");
  const text = JSON.stringify(growths.map((one) => ({ ...one, still_s: 0 })));
  byId("growths").hidden = growths.length === 0;
  if (list.dataset.text === text) return;
  list.dataset.text = text;
  list.replaceChildren(...growths.map(growthItem));
}
function growthItem(one) {
  const item = element("div", "growth");
  item.append(element("strong", "", `${one.flow}: ${one.before} to ${one.after} partitions, ${one.phase}`), document.createTextNode(` ${one.waits}`));
  item.append(element("p", "steps", Object.entries(one.steps).map(([name, [done, of]]) => `${name} ${count(done)} of ${count(of)}`).join(", ")));
  const family = element("ul", "family");
  for (const parent of one.parents) {
    const row = element("li");
    row.append(partitionBox(one, parent.partition), document.createTextNode("→ "), ...parent.children.map((child) => partitionBox(one, child)));
    family.append(row);
  }
  item.append(family);
  return item;
}
function partitionBox(one, partition) {
  const state = one.states[partition] || "none";
  const box = element("span", `p ${state}`, String(partition));
  box.title = `partition ${partition}: ${STATES[state]}`;
  box.setAttribute("aria-label", box.title);
  return box;
}
const RANK = { NOTFOUND: 0, OK: 1, WARN: 2, REWIND: 3, STALL: 4, STOP: 5, ERR: 6 };
function alarmItem(one) {
  const item = element("li", one.kind);
  const head = element("strong", "", one.group ? "" : one.head);
  if (one.group) {
    const button = element("button", "", one.head);
    button.type = "button";
    button.title = "Show its partitions";
    button.addEventListener("click", () => {
      choose(one.group, true);
      byId("partitions-title").scrollIntoView();
    });
    head.append(button);
  }
  item.append(head, document.createTextNode(one.text));
  if (one.advice || one.runbook) {
    const todo = element("span", "do", one.advice ? `→ ${one.advice} ` : "");
    if (one.runbook) {
      const link = element("a", "", "runbook");
      link.href = `/runbooks/${one.runbook}`;
      todo.append(link);
    }
    item.append(todo);
  }
  return item;
}
function showFigures(told) {
  const slo = told.slo;
  put(byId("slo-good"), slo.good === null ? "no events yet" : (100 * slo.good).toFixed(slo.good === 1 ? 0 : 2) + " %");
  byId("slo-good").className = "big" + (slo.good !== null && slo.good < 0.99 ? " bad" : "");
  const burn = Object.entries(slo.burn).filter(([, value]) => value !== null).map(([name, value]) => `${name} ${value}×`).join(", ");
  put(byId("slo-more"), `budget left ${(100 * slo.budget_left).toFixed(0)} %${burn ? `; burn rate ${burn}` : ""}${slo.young === null ? "" : `; within 60 s of the event's own time: ${(100 * slo.young).toFixed(0)} %`}; watched for ${duration(slo.watched)}`);
  const all = Object.values(told.rates).reduce((a, b) => a + b, 0);
  put(byId("throughput"), told.workers.some((one) => one.owns === null) ? rate(all) : "no worker seen");
  put(byId("outcomes"), Object.entries(told.rates).map(([name, value]) => `${name} ${rate(value)}`).join(", "));
  const grown = told.dead_letters.reduce((a, one) => a + one.grown, 0);
  put(byId("dead"), grown ? `+${count(grown)}` : told.dead_letters.length ? "none new" : "being counted");
  put(byId("dead-more"), told.dead_letters.map((one) => `${one.topic}: ${count(one.letters)} (${count(one.open)} open), +${count(one.grown)} in ${duration(one.grown_s)}`).join("; "));
  const worst = Math.max(0, ...told.groups.map((one) => one.lag_s));
  put(byId("lag-all"), duration(worst));
  put(byId("lag-more"), `${count(told.groups.reduce((a, one) => a + one.lag, 0))} records in ${told.groups.length} groups`);
}
function showGroups(groups) {
  const body = byId("groups").tBodies[0];
  const made = rows(body, groups.map((one) => one.group), (name) => {
    const row = cells(["", "", "n", "n", "history", "n wide", "n wide", "n wide", "n wide", "n wide"]);
    const button = element("button", "", name);
    button.type = "button";
    button.addEventListener("click", () => choose(name, true));
    row.cells[1].append(button);
    return row;
  });
  groups.forEach((one, i) => {
    const row = made[i];
    row.classList.toggle("chosen", one.group === chosen);
    row.cells[1].firstChild.setAttribute("aria-pressed", String(one.group === chosen));
    verdict(row.cells[0], one.status);
    put(row.cells[2], duration(one.lag_s));
    put(row.cells[3], count(one.lag));
    spark(row.cells[4], one.history);
    put(row.cells[5], rate(one.consume));
    put(row.cells[6], rate(one.arrive));
    put(row.cells[7], one.catch_up === 0 ? "" : one.catch_up === null ? "not" : duration(one.catch_up));
    put(row.cells[8], one.members === null ? "?" : count(one.members));
    put(row.cells[9], count(one.partitions));
  });
  // Of a group that is not there nothing is asked.
  if (chosen !== historyOf && groups.some((one) => one.group === chosen)) {
    historyOf = chosen;
    showHistory(chosen);
  }
}
function showSources(sources) {
  const made = rows(byId("sources").tBodies[0], sources.map((one) => one.source), (name) => {
    const row = cells(["", "n", "n", ""]);
    row.cells[0].textContent = name;
    row.cells[3].append(element("span", "v"), document.createTextNode(" "), element("span"));
    return row;
  });
  sources.forEach((one, i) => {
    const row = made[i];
    put(row.cells[1], duration(one.event_age));
    put(row.cells[2], duration(one.arrival_age));
    const word = one.silent ? "silent" : one.waiting ? "waiting" : one.arrival_age === null ? "none yet" : "fresh";
    row.cells[3].firstChild.className = "v " + word;
    put(row.cells[3].firstChild, word);
    put(row.cells[3].lastChild, one.why);
  });
}
function showSinks(sinks) {
  byId("sinks-part").hidden = !sinks.length;
  const made = rows(byId("sinks").tBodies[0], sinks.map((one) => one.process), () => cells(["", "", "", "", "n", "n", "n", "n", "n", "why"]));
  sinks.forEach((one, i) => {
    const row = made[i];
    put(row.cells[0], one.sink || "not known");
    put(row.cells[1], one.process);
    verdict(row.cells[2], one.ready ? "ready" : "stalled");
    put(row.cells[3], one.breaker || "not known");
    put(row.cells[4], one.lag === null ? "" : count(one.lag));
    put(row.cells[5], duration(one.lag_s));
    put(row.cells[6], duration(one.unwritten_s));
    put(row.cells[7], count(one.written));
    put(row.cells[8], count(one.rejected));
    put(row.cells[9], one.ready ? "" : one.state);
  });
}
function showWorkers(workers) {
  const made = rows(byId("workers").tBodies[0], workers.map((one) => `${one.worker} ${one.owns === null} ${one.owns === null ? "" : one.state}`), () => cells(["", "", "n", ""]));
  workers.forEach((one, i) => {
    const row = made[i];
    put(row.cells[0], one.worker);
    if (one.owns === null) verdict(row.cells[1], one.ready ? "ready" : "away");
    else put(row.cells[1], one.state);
    row.cells[1].title = one.state;
    put(row.cells[2], duration(one.watermark));
    put(row.cells[3], one.owns === null ? (one.ready ? "" : one.state) : one.owns || "nothing");
  });
}

// --- the partitions of the chosen group ----------------------------------------------------------------------------
function showPartitions(told) {
  if (told.group !== chosen) return;
  const body = byId("partitions").tBodies[0];
  const keys = told.partition.map((number, i) => `${told.topic[i]}-${number}`);
  const made = rows(body, keys, (key) => {
    const row = cells(["", "name", "n", "n", "history", "n wide", "n wide", "n wide", "wide", "why"]);
    const button = element("button", "", key);
    button.type = "button";
    button.title = "Show its history";
    button.addEventListener("click", () => {
      const at = key.lastIndexOf("-");
      showHistory(chosen, { topic: key.slice(0, at), number: Number(key.slice(at + 1)) });
      byId("history-title").scrollIntoView();
    });
    row.cells[1].append(button);
    row.cells[9].append(element("span"), element("span", "do"));
    return row;
  });
  keys.forEach((key, i) => {
    const row = made[i];
    let history = histories.get(key);
    if (told.history) history = told.history[i].slice(-HISTORY_MAX);
    else if (history) {
      history.push(told.lag[i]);
      if (history.length > HISTORY_MAX) history.shift();
    } else history = [told.lag[i]];
    histories.set(key, history);
    verdict(row.cells[0], told.status[i]);
    put(row.cells[2], duration(told.lag_s[i]));
    put(row.cells[3], count(told.lag[i]));
    spark(row.cells[4], history);
    put(row.cells[5], rate(told.consume[i]));
    put(row.cells[6], rate(told.arrive[i]));
    put(row.cells[7], duration(told.watermark[i]));
    put(row.cells[8], told.owner[i]);
    put(row.cells[9].firstChild, told.why[i] + (RANK[told.status[i]] > 1 ? `, since ${clock(told.since[i])}` : ""));
    put(row.cells[9].lastChild, told.advice[i] ? `→ ${told.advice[i]}` : "");
    row.words = `${key} ${told.status[i]} ${told.owner[i]}`.toLowerCase();
  });
  body.dataset.total = told.total;
  filter();
}
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const body = byId("partitions").tBodies[0];
  let shown = 0;
  for (const row of body.rows) {
    const wanted = words.every((word) => (row.words || "").includes(word));
    if (row.hidden === wanted) row.hidden = !wanted;
    if (wanted) shown += 1;
  }
  put(byId("shown"), `${count(shown)} of ${count(Number(body.dataset.total || 0))}`);
}
function choose(name, byUser) {
  if (name !== chosen || source === null || !source.url.includes("group=")) {
    chosen = name;
    histories.clear();
    delete byId("partitions").tBodies[0].dataset.total;
    if (byUser) history.replaceState(null, "", `#${encodeURIComponent(name)}`);
    put(byId("partitions-title"), `Partitions of ${name}`);
    rows(byId("partitions").tBodies[0], [], () => null);
    connect();
  }
  if (overview !== null) showGroups(overview.groups);
}

// --- live ----------------------------------------------------------------------------------------------------------
// The browser opens the stream again by itself when it breaks, but not when the answer is an error, as that of a proxy
// whose monitor is away (502, 503), nor when nothing comes any more on a connection that nobody has closed.
function connect() {
  clearTimeout(again);
  again = null;
  if (source !== null) source.close();
  openedAt = Date.now();
  const opened = new EventSource(`${base}/api/live${chosen === null ? "" : `?group=${encodeURIComponent(chosen)}`}`);
  source = opened;
  opened.addEventListener("overview", (event) => {
    failures = 0;
    showOverview(JSON.parse(event.data));
  });
  opened.addEventListener("partitions", (event) => showPartitions(JSON.parse(event.data)));
  opened.addEventListener("error", () => {
    if (opened === source && opened.readyState === EventSource.CLOSED) connectAgain();
  });
}
function connectAgain() {
  if (again !== null) return;
  const pause = AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)];
  failures += 1;
  again = setTimeout(connect, pause * (0.75 + Math.random() / 2));
}
function watchOver() {
  showState();
  if (again !== null) return;
  const quiet = (Date.now() - Math.max(heardAt, openedAt)) / 1000;
  if (quiet > (overview === null ? QUIET_FIRST_S : Math.max(QUIET_MIN_S, 3 * overview.interval + 5))) connectAgain();
}
setInterval(watchOver, 1000);
addEventListener("hashchange", () => {
  const named = groupOfHash();
  if (named !== null && named !== chosen) choose(named, false);
});

// --- keys (`theme.js` has the one of the theme) --------------------------------------------------------------------
byId("filter").addEventListener("input", filter);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "Escape") {
    byId("filter").value = "";
    filter();
    if (typing) event.target.blur();
  } else if (typing) {
    return;
  } else if (event.key === "/") {
    event.preventDefault();
    byId("filter").focus();
  } else if ((event.key === "j" || event.key === "k") && overview !== null && overview.groups.length) {
    const names = overview.groups.map((one) => one.group);
    const at = names.indexOf(chosen) + (event.key === "j" ? 1 : -1);
    choose(names[(at + names.length) % names.length], true);
    const row = byId("groups").tBodies[0].rows[(at + names.length) % names.length];
    if (row) row.querySelector("button").focus();
  }
});
if (chosen !== null) {
  put(byId("partitions-title"), `Partitions of ${chosen}`);
}
connect();
