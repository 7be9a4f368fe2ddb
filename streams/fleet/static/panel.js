// What is known of one vehicle, asked for again while the panel is open.
import { minutesChart } from "./chart.js";
import { byId, element, put } from "./dom.js";
import { ask } from "./stream.js";
import { clock, clockS, count, duration, kilometres, plain, speed, when, wind } from "./words.js";

const AGAIN_MS = 2000;
const RARELY = 5; // dead letters and raw events are asked for every so many times

export class Panel {
  // `near(latitude, longitude)`: a place in words; `feeds()`: names of what the app's map has.
  constructor({ near, feeds }) {
    Object.assign(this, { near, feeds });
    this.number = null;
    this.timer = 0;
    this.parts = {};
    this.opened = new Set();
  }

  open(number, epoch, name) {
    clearTimeout(this.timer);
    if (this.number !== number) {
      byId("panel-body").replaceChildren();
      this.parts = {};
      this.opened.clear();
    }
    Object.assign(this, { number, epoch, asked: 0 });
    put(byId("panel-title"), name);
    put(byId("panel-where"), "");
    byId("panel").hidden = false;
    byId("panel").scrollTop = 0;
    this.#ask();
  }

  close() {
    clearTimeout(this.timer);
    this.number = null;
    byId("panel").hidden = true;
  }

  state(word) {
    put(byId("panel-state"), word);
    byId("panel-state").className = `v ${word}`;
  }

  async #ask() {
    const { number } = this;
    const values = { vehicle: number, epoch: this.epoch };
    try {
      const told = await ask("vehicle", values);
      if (number !== this.number) return;
      this.#facts(told);
      if (this.asked % RARELY === 0) this.#rarely(number, values);
      this.asked += 1;
    } catch (error) {
      if (number === this.number) put(byId("panel-where"), error.message);
    }
    if (number === this.number) this.timer = setTimeout(() => this.#ask(), AGAIN_MS);
  }

  async #rarely(number, values) {
    for (const [name, show] of [["letters", this.#letters], ["events", this.#events]]) {
      try {
        const told = await ask(name, values);
        if (number === this.number) show.call(this, told);
      } catch (error) {
        if (number === this.number) this.#part(name === "letters" ? "Dead letters" : "Newest events", element("p", "quiet", error.message));
      }
    }
  }

  // A part of the panel with a heading; its place is the one it had first. Left as it is while nothing has changed.
  #part(title, ...content) {
    let part = this.parts[title];
    if (!part) {
      part = this.parts[title] = element("section");
      byId("panel-body").append(part);
    }
    const made = element("section");
    if (title) made.append(element("h3", "", title));
    made.append(...content);
    if (made.innerHTML !== part.innerHTML || content.some((one) => one.tagName === "DETAILS")) part.replaceChildren(...made.childNodes);
  }

  #facts(told) {
    const has = new Set(this.feeds());
    const place = told.latitude === null ? "" : this.near(told.latitude, told.longitude);
    put(byId("panel-where"), [told.latitude === null ? "position not shown" : place, told.time === null ? "" : `heard ${clockS(told.time)}`].filter(Boolean).join(", "));
    const facts = [
      ["Speed", speed(told.speed_kmh)],
      ["Heading", told.heading_deg === null ? "unknown" : wind(told.heading_deg)],
      ["Odometer", kilometres(told.odometer_km)],
      ["Mean speed", speed(told.speed_mean_kmh)],
      ["Greatest speed", speed(told.speed_max_kmh)],
      told.stopped_since === null ? ["Events", told.events === null ? "unknown" : count(told.events)] : ["Stopped for", duration(Date.now() - told.stopped_since)],
    ];
    const list = element("dl", "facts");
    for (const [name, value] of facts) {
      const box = element("div");
      box.append(element("dt", "", name), element("dd", "", value));
      list.append(box);
    }
    this.#part("", list);
    if (has.has("minutes")) this.#part("Last hour, by minute", minutesChart(told.minutes, told.time ?? Date.now()));
    if (has.has("orders")) this.#part(`Orders on board: ${count(told.orders_total)}`, this.#orders(told.orders));
    if (has.has("trips")) this.#part("Trips", table(["From", "To", "Distance", "Mean"], told.trips.map((one) => [clock(one.start), clock(one.end), kilometres(one.km), speed(one.kmh)]), "no trip is over yet: it ends after five minutes without a position"));
    if (has.has("deliveries")) this.#part("Deliveries", table(["Order", "Time", "Was there", "Because"], told.deliveries.map((one) => [one.order, clock(one.time), plain(one.verdict), plain(one.cause ?? "")]), "none lately"));
    if (has.has("late_promises") && told.late_promises.length) this.#part("Promises not kept", table(["Order", "Promised", "Why", "Late by"], told.late_promises.map((one) => [one.order, clock(one.time), plain(one.reason), one.late_by_ms == null ? "" : duration(one.late_by_ms)]), ""));
  }

  #orders(orders) {
    const made = table(["Order", "Status", "Promised", "Expected", "Risk"], orders.map((one) => [one.order, plain(one.status), when(one.promised, Date.now()), when(one.expected, Date.now()), one.late ? "late" : plain(one.risk)]), "none");
    [...made.querySelectorAll("tbody tr")].forEach((row, at) => {
      const word = element("span", `v ${orders[at].late ? "late" : orders[at].risk === "AT_RISK" ? "risk" : ""}`.trim(), row.lastChild.textContent);
      row.lastChild.replaceChildren(word);
    });
    return made;
  }

  #letters(told) {
    const line = element("p", "quiet", told.total === 0 ? "none" : `${count(told.total)}, ${count(told.open)} open: ${told.reasons.map((one) => `${plain(one.reason)} ${count(one.letters)}`).join(", ")} `);
    if (told.total) {
      const link = element("a", "", "look at them");
      link.href = `/dead-letters/?${new URLSearchParams({ device: byId("panel-title").textContent, status: "all" })}`;
      line.append(link);
    }
    this.#part("Dead letters", line);
  }

  #events(told) {
    const items = told.events.map((one) => {
      const key = `${one.partition}-${one.offset}`;
      const item = element("details");
      item.open = this.opened.has(key);
      item.addEventListener("toggle", () => this.opened[item.open ? "add" : "delete"](key));
      item.append(element("summary", "", `${clockS(one.time ?? null)}, partition ${one.partition}, offset ${one.offset}`), element("pre", "", one.fields === null ? one.why : JSON.stringify(one.fields, null, 1)));
      return item;
    });
    this.#part("Newest events", ...(items.length ? items : [element("p", "quiet", "none since the page began to read")]));
  }
}

function table(heads, lines, none) {
  if (lines.length === 0) return element("p", "quiet", none);
  const made = element("table");
  const head = element("tr");
  for (const text of heads) {
    const cell = element("th", "", text);
    cell.scope = "col";
    head.append(cell);
  }
  made.createTHead().append(head);
  const body = made.createTBody();
  for (const line of lines) {
    const row = element("tr");
    for (const text of line) row.append(element("td", "", text));
    body.append(row);
  }
  return made;
}
