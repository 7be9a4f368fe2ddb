// A chart of lines over time, drawn as SVG: for the eye, the pointer, the keyboard (arrow keys move a cursor whose values
// a screen reader reads), and as a table for people who do not see it.
import { element, node } from "./dom.js";
import { duration } from "./words.js";

const HEIGHT = 190;
const LEFT = 62;
const RIGHT = 10;
const TOP = 18;
const BOTTOM = 22;
const TICKS_Y = 4;
const TICK_PX = 90;
const TABLE_ROWS_MAX = 60;
const STEPS_S = [15, 60, 300, 900, 1800, 3600, 10800, 21600, 43200, 86400, 172800, 604800, 1209600];
const LETTERS = { rebalance: "R", deploy: "D", growth: "G" };

const TICKS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
// The least of 1, 2, 5 times a power of ten that is no less; of seconds, the least usual length of time.
function nice(value, isTime) {
  if (isTime && value > 0.5 && value <= 86400) return TICKS_S.find((one) => one >= value * 0.999);
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((factor) => factor * power >= value * 0.999) * power;
}
function instant(ms, step) {
  const at = new Date(ms);
  const day = at.toLocaleDateString([], { month: "short", day: "numeric" });
  if (step >= 86400) return day;
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: step < 60 ? "2-digit" : undefined, hour12: false });
  return step >= 10800 && at.getHours() === 0 && at.getMinutes() === 0 ? day : time;
}
export const moment = (ms) => new Date(ms).toLocaleString([], { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

// `series`: of each line its name in the values, its label, and its class (a colour and a dash of its own).
export class Chart {
  constructor(figure, title, format, series) {
    this.figure = figure;
    this.title = title;
    this.format = format;
    this.series = series;
    this.told = null;
    this.at = null;
    const head = element("figcaption");
    head.append(element("strong", "", title), ...series.map((one) => this.#legend(one)));
    this.readout = element("p", "readout");
    this.readout.setAttribute("aria-live", "polite");
    this.svg = node("svg", { class: "lines", role: "img", tabindex: "0", height: HEIGHT });
    this.table = element("table");
    const details = element("details");
    details.append(element("summary", "", `${title} as a table`), this.table);
    details.addEventListener("toggle", () => this.#fillTable(details.open));
    this.details = details;
    figure.replaceChildren(head, this.svg, this.readout, details);
    this.svg.addEventListener("pointermove", (event) => this.#point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener("pointerleave", () => this.#move(null));
    this.svg.addEventListener("blur", () => this.#move(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(figure);
  }
  #legend(one) {
    const entry = element("span", "legend");
    const line = node("svg", { class: "sample", viewBox: "0 0 24 8", width: 24, height: 8, "aria-hidden": "true" });
    line.append(node("line", { class: one.kind, x1: 0, x2: 24, y1: 4, y2: 4 }));
    entry.append(line, document.createTextNode(one.label));
    return entry;
  }
  show(told) {
    if (told === null || (this.told !== null && (this.told.step !== told.step || this.told.key !== told.key))) this.at = null;
    else if (this.told !== null && this.at !== null) this.at -= (told.start - this.told.start) / told.step;
    if (this.at !== null && this.at < 0) this.at = null;
    this.told = told;
    this.#draw();
    this.#fillTable(this.details.open);
  }
  #x(ms) {
    const { start, step, steps } = this.told;
    return LEFT + ((ms - start) / (step * steps)) * (this.width - LEFT - RIGHT);
  }
  #y(value) {
    return HEIGHT - BOTTOM - (value / this.top) * (HEIGHT - BOTTOM - TOP);
  }
  #middle(place) {
    return this.told.start + (place + 0.5) * this.told.step;
  }
  #draw() {
    this.width = Math.max(220, this.figure.clientWidth);
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    if (this.told === null) {
      this.svg.replaceChildren();
      return;
    }
    const all = this.series.flatMap((one) => this.told.values[one.name].filter((value) => value !== null));
    const highest = Math.max(...all, 0);
    const tick = nice(Math.max(highest, 1) / TICKS_Y, this.format === duration);
    this.top = tick * Math.max(1, Math.ceil((highest || tick) / tick));
    this.svg.replaceChildren(...this.#grid(tick), ...this.series.flatMap((one) => this.#line(one)), ...this.#annotations());
    this.cursor = node("g", { class: "cursor" });
    this.svg.append(this.cursor);
    if (!all.length) this.svg.append(node("text", { class: "nothing", x: this.width / 2, y: HEIGHT / 2 }, "nothing is known of this time"));
    const told = all.length ? `highest ${this.format(highest)}, ${this.#words(this.#last())}` : "nothing is known of this time";
    this.svg.setAttribute("aria-label", `${this.title}: ${told}. Arrow keys move through time.`);
    this.#move(this.at);
  }
  #grid(tick) {
    const found = [];
    for (let value = 0; value <= this.top * 1.0001; value += tick) {
      const y = this.#y(value);
      found.push(node("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }), node("text", { class: "tick y", x: LEFT - 6, y: y + 4 }, this.format(value)));
    }
    const { start, step, steps } = this.told;
    const seconds = (step * steps) / 1000;
    const most = Math.max(2, Math.floor((this.width - LEFT - RIGHT) / TICK_PX));
    const every = STEPS_S.find((one) => seconds / one <= most) || STEPS_S[STEPS_S.length - 1];
    const zone = new Date(start).getTimezoneOffset() * 60000;
    const begin = Math.ceil((start - zone) / (every * 1000)) * every * 1000 + zone;
    for (let at = begin; at < start + step * steps; at += every * 1000) {
      const x = this.#x(at);
      if (x < LEFT + 16 || x > this.width - RIGHT - 16) continue;
      found.push(node("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), node("text", { class: "tick x", x, y: HEIGHT - 6 }, instant(at, every)));
    }
    return found;
  }
  // A line, broken where nothing is known; what has no neighbour is a dot.
  #line(one) {
    const values = this.told.values[one.name];
    const parts = [];
    let open = [];
    values.forEach((value, i) => {
      if (value === null) {
        if (open.length) parts.push(open);
        open = [];
      } else open.push(`${this.#x(this.#middle(i)).toFixed(1)},${this.#y(value).toFixed(1)}`);
    });
    if (open.length) parts.push(open);
    return parts.map((points) => {
      if (points.length > 1) return node("polyline", { class: one.kind, points: points.join(" ") });
      const [x, y] = points[0].split(",");
      return node("circle", { class: one.kind, cx: x, cy: y, r: 1.5 });
    });
  }
  #annotations() {
    return this.told.annotations.map((one) => {
      const x = Math.min(Math.max(this.#x(one.time), LEFT), this.width - RIGHT);
      const mark = node("g", { class: `mark of-${one.kind}` });
      mark.append(
        node("title", {}, `${moment(one.time)}: ${one.kind}, ${one.text}`),
        node("line", { x1: x, x2: x, y1: TOP - 2, y2: HEIGHT - BOTTOM }),
        node("circle", { cx: x, cy: 9, r: 8 }),
        node("text", { x, y: 13 }, LETTERS[one.kind] || "?"),
      );
      return mark;
    });
  }
  #last() {
    const { values, steps } = this.told;
    for (let i = steps - 1; i >= 0; i -= 1) if (this.series.some((one) => values[one.name][i] !== null)) return i;
    return null;
  }
  #words(place) {
    if (place === null) return "";
    const values = this.series.map((one) => {
      const value = this.told.values[one.name][place];
      return `${one.label} ${value === null ? "not known" : this.format(value)}`;
    });
    const half = this.told.step / 2;
    const near = this.told.annotations.filter((one) => Math.abs(one.time - this.#middle(place)) <= half).map((one) => `; ${one.kind}: ${one.text}`);
    return `${moment(this.#middle(place))}: ${values.join(", ")}${near.join("")}`;
  }
  #point(x) {
    if (this.told === null) return;
    const { steps } = this.told;
    const place = Math.floor(((x - LEFT) / (this.width - LEFT - RIGHT)) * steps);
    this.#move(place >= 0 && place < steps ? place : null);
  }
  #key(event) {
    if (this.told === null) return;
    const last = this.told.steps - 1;
    const page = Math.max(1, Math.round(last / 10));
    const from = this.at === null ? this.#last() ?? last : this.at;
    const places = { ArrowLeft: this.at === null ? from : from - 1, ArrowRight: this.at === null ? from : from + 1, Home: 0, End: last, PageUp: from - page, PageDown: from + page };
    if (!(event.key in places)) return;
    event.preventDefault();
    this.#move(Math.min(Math.max(places[event.key], 0), last));
  }
  #move(place) {
    this.at = place;
    if (this.cursor === undefined) return;
    if (place === null || this.told === null) {
      this.cursor.replaceChildren();
      this.readout.textContent = this.told === null ? "" : this.#words(this.#last());
      return;
    }
    const x = this.#x(this.#middle(place));
    const dots = this.series.flatMap((one) => {
      const value = this.told.values[one.name][place];
      return value === null ? [] : [node("circle", { class: one.kind, cx: x, cy: this.#y(value), r: 3.5 })];
    });
    this.cursor.replaceChildren(node("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }), ...dots);
    this.readout.textContent = this.#words(place);
  }
  // At most TABLE_ROWS_MAX rows, each for the last of its steps; only while the table is shown.
  #fillTable(isOpen) {
    if (!isOpen || this.told === null) {
      this.table.replaceChildren();
      return;
    }
    const head = element("tr");
    for (const text of ["Time", ...this.series.map((one) => one.label)]) {
      const cell = element("th", "", text);
      cell.scope = "col";
      head.append(cell);
    }
    const every = Math.ceil(this.told.steps / TABLE_ROWS_MAX);
    const body = [];
    for (let i = this.told.steps - 1; i >= 0; i -= every) {
      const row = element("tr");
      row.append(element("td", "", moment(this.#middle(i))));
      for (const one of this.series) {
        const value = this.told.values[one.name][i];
        row.append(element("td", "n", value === null ? "" : this.format(value)));
      }
      body.push(row);
    }
    const caption = element("caption", "", `${this.title}, the newest first`);
    this.table.replaceChildren(caption, head, ...body);
  }
}
