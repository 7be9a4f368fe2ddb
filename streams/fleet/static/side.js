// The lists beside the map: counts that show and hide, search, vehicles in view, orders at risk.
import { byId, element, put, rows } from "./dom.js";
import { STATE_WORDS, count, duration, plain, speed, when } from "./words.js";

const ROWS_MAX = 100;

export class Side {
  // `choose(number)`, `view()` what is drawn, `inView(number)`, `filter(mask)`.
  constructor({ vehicles, choose, inView, filter, view }) {
    Object.assign(this, { vehicles, choose, inView, filter, view });
    this.mask = 0;
    this.news = null;
    this.chosen = null;
    for (const button of byId("counts").querySelectorAll("[data-kind]")) button.addEventListener("click", () => this.#toggle(button));
    byId("risk-count").addEventListener("click", () => this.#open("orders"));
    const tabs = ["list", "orders"];
    for (const name of tabs) {
      byId(`tab-${name}`).addEventListener("click", () => this.#open(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => {
        if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
        const other = tabs.find((one) => one !== name);
        this.#open(other);
        byId(`tab-${other}`).focus();
        event.stopPropagation();
      });
    }
    byId("sheet").addEventListener("click", () => this.sheet(!byId("side").classList.contains("open")));
    byId("search").addEventListener("input", () => this.show());
    byId("search").addEventListener("focus", () => this.sheet(true));
    byId("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#first();
    });
  }

  get words() {
    return byId("search").value.trim().toLowerCase();
  }

  // On a phone the lists are pulled up.
  sheet(open) {
    byId("side").classList.toggle("open", open);
    byId("sheet").setAttribute("aria-expanded", String(open));
    byId("sheet").setAttribute("aria-label", open ? "Hide the lists" : "Show the lists");
  }

  #toggle(button) {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    const bit = 1 << Number(button.dataset.kind);
    this.mask = shown ? this.mask & ~bit : this.mask | bit;
    this.filter(this.mask);
    this.show();
  }

  #open(name) {
    for (const one of ["list", "orders"]) {
      byId(one).hidden = one !== name;
      byId(`tab-${one}`).setAttribute("aria-selected", String(one === name));
      byId(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    }
    this.sheet(true);
    this.show();
  }

  #first() {
    const button = (byId("list").hidden ? byId("orders") : byId("list")).querySelector("tbody button");
    if (button) button.click();
  }

  take(news) {
    this.news = news;
    for (const name of ["moving", "stopped", "silent"]) put(byId(name), count(news[name]));
    put(byId("at-risk"), count(news.at_risk));
    this.show();
  }

  // Write the list that is open.
  show() {
    if (byId("list").hidden) this.#orders();
    else this.#list();
  }

  // Numbers of the vehicles to be listed: those that the search finds, or those in view.
  found(most = ROWS_MAX) {
    const { words, vehicles } = this;
    const view = this.view();
    const all = [];
    for (let n = 0; n < view.count; n += 1) {
      if (vehicles.time[n] === 0 || (view.kind[n] && this.mask & (1 << view.kind[n]))) continue;
      if (words ? vehicles.ids[n]?.toLowerCase().includes(words) : this.inView(n)) all.push(n);
    }
    const total = all.length;
    if (total < 5000) all.sort((a, b) => vehicles.ids[a].localeCompare(vehicles.ids[b], "en", { numeric: true }));
    return { total, numbers: all.slice(0, most) };
  }

  #list() {
    const { vehicles } = this;
    const view = this.view();
    const { total, numbers } = this.found();
    const where = this.words ? "found" : "in view";
    put(byId("listed"), total > numbers.length ? `${count(numbers.length)} of ${count(total)} ${where}` : `${count(total)} ${where}`);
    const now = vehicles.serverNow();
    const made = rows(byId("list").querySelector("tbody"), numbers.map(String), (key) => {
      const row = element("tr");
      const name = element("td");
      const button = element("button", "", vehicles.ids[Number(key)]);
      button.type = "button";
      button.addEventListener("click", () => this.choose(Number(key), true));
      name.append(button);
      const state = element("td");
      state.append(element("span", "v"));
      row.append(name, state, element("td", "n"), element("td", "n"));
      return row;
    });
    numbers.forEach((n, at) => {
      const row = made[at];
      const word = STATE_WORDS[view.kind[n] || vehicles.stateOf(n)];
      row.classList.toggle("chosen", n === this.chosen);
      const state = row.cells[1].firstChild;
      put(state, word);
      if (state.className !== `v ${word}`) state.className = `v ${word}`;
      put(row.cells[2], Number.isNaN(view.speed[n]) ? "" : speed(view.speed[n]));
      put(row.cells[3], duration(now - vehicles.time[n]));
    });
  }

  #orders() {
    const all = this.news?.risky ?? [];
    const words = this.words;
    const found = all.filter((one) => !words || `${one.order} ${one.vehicle_id ?? ""}`.toLowerCase().includes(words)).slice(0, ROWS_MAX);
    put(byId("ordered"), this.news === null ? "" : `${count(found.length)} of ${count(this.news.at_risk)}; those that can still be in time come first`);
    const made = rows(byId("orders").querySelector("tbody"), found.map((one) => one.order), (key) => {
      const row = element("tr");
      const name = element("td");
      const button = element("button", "", key);
      button.type = "button";
      button.addEventListener("click", () => {
        if (row.vehicle !== null && row.vehicle !== undefined) this.choose(row.vehicle, true);
      });
      name.append(button);
      const risk = element("td");
      risk.append(element("span", "v"));
      row.append(name, risk, element("td", "n"), element("td", "n"));
      return row;
    });
    found.forEach((one, at) => {
      const row = made[at];
      row.vehicle = one.vehicle;
      row.cells[0].firstChild.disabled = one.vehicle === null;
      row.cells[0].firstChild.title = one.vehicle === null ? "No vehicle that is known carries it" : "Show its vehicle";
      put(row.cells[1].firstChild, one.late ? "late" : plain(one.risk));
      row.cells[1].firstChild.className = `v ${one.late ? "late" : "risk"}`;
      put(row.cells[2], when(one.promised, this.news.now));
      put(row.cells[3], when(one.expected, this.news.now));
    });
  }
}
