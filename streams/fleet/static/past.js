// A stretch of the past: where every vehicle was at any moment of it. Drawn as the present is.
import { ask } from "./stream.js";
import { DEGREE, UNKNOWN, onlyMessage } from "./frames.js";
import { worldX, worldY } from "./mercator.js";
import { MOVING, SILENT, STOPPED } from "./words.js";

const CHUNK_MS = 300000;
const BEYOND_MS = 60000; // what comes after a stretch says where vehicles go at its end
const STOPPED_BELOW = 3;

export class Past {
  constructor(live) {
    this.live = live;
    this.tails = false;
    this.from = this.until = 0;
    this.oldest = null;
    this.count = 0;
    this.loading = null;
  }

  get ids() {
    return this.live.ids;
  }

  covers(time) {
    return this.from <= time && time < this.until;
  }

  // Have the stretch around a time loaded.
  async load(time) {
    const from = Math.floor(time / CHUNK_MS) * CHUNK_MS;
    if (this.loading === from) return;
    this.loading = from;
    try {
      const values = { epoch: this.live.epoch, from, to: from + CHUNK_MS + BEYOND_MS };
      const answer = await fetch(`api/past?${new URLSearchParams(values)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).why ?? `status ${answer.status}`);
      this.oldest = Number(answer.headers.get("X-Oldest-Ms"));
      this.#sort(onlyMessage(await answer.arrayBuffer()).positions);
      this.from = from;
      this.until = from + CHUNK_MS;
    } finally {
      this.loading = null;
    }
  }

  // Rows by vehicle, each vehicle's in order of time.
  #sort(told) {
    const vehicles = this.live.count;
    const starts = new Uint32Array(vehicles + 1);
    for (let i = 0; i < told.count; i += 1) if (told.vehicle[i] < vehicles) starts[told.vehicle[i] + 1] += 1;
    for (let n = 0; n < vehicles; n += 1) starts[n + 1] += starts[n];
    const next = starts.slice();
    const size = starts[vehicles];
    const rows = { time: new Float64Array(size), x: new Float64Array(size), y: new Float64Array(size), speed: new Float32Array(size), angle: new Float32Array(size) };
    for (let i = 0; i < told.count; i += 1) {
      if (told.vehicle[i] >= vehicles) continue;
      const at = next[told.vehicle[i]];
      next[told.vehicle[i]] += 1;
      rows.time[at] = told.time[i];
      rows.x[at] = worldX(told.longitude[i] / DEGREE);
      rows.y[at] = worldY(told.latitude[i] / DEGREE);
      rows.speed[at] = told.speed[i] === UNKNOWN ? NaN : told.speed[i] / 10;
      rows.angle[at] = told.heading[i] === UNKNOWN ? NaN : (told.heading[i] / 18000) * Math.PI;
    }
    this.starts = starts;
    this.rows = rows;
    this.count = vehicles;
    this.x = new Float64Array(vehicles);
    this.y = new Float64Array(vehicles);
    this.time = new Float64Array(vehicles);
    this.speed = new Float32Array(vehicles);
    this.angle = new Float32Array(vehicles);
    this.kind = new Uint8Array(vehicles);
    this.flags = new Uint8Array(vehicles);
  }

  // Where everybody was at a time of the stretch.
  stepTo(moment) {
    const { rows, starts } = this;
    for (let n = 0; n < this.count; n += 1) {
      let low = starts[n];
      let high = starts[n + 1];
      if (low === high || rows.time[low] > moment) {
        this.kind[n] = 0;
        continue;
      }
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (rows.time[middle] <= moment) low = middle;
        else high = middle;
      }
      const after = low + 1 < starts[n + 1] ? low + 1 : low;
      const span = rows.time[after] - rows.time[low];
      const share = span > 0 ? (moment - rows.time[low]) / span : 0;
      this.x[n] = rows.x[low] + (rows.x[after] - rows.x[low]) * share;
      this.y[n] = rows.y[low] + (rows.y[after] - rows.y[low]) * share;
      this.time[n] = rows.time[low];
      this.speed[n] = rows.speed[low];
      const known = rows.angle[low];
      this.angle[n] = Number.isNaN(known) ? Math.atan2(rows.x[after] - rows.x[low], rows.y[low] - rows.y[after]) : known;
      this.kind[n] = moment - rows.time[low] > this.live.silentAfter ? SILENT : rows.speed[low] < STOPPED_BELOW ? STOPPED : MOVING;
    }
  }
}

export const trailOf = (vehicle, epoch) =>
  ask("trail", { vehicle, epoch }).then((told) => told.points.map(([time, latitude, longitude]) => ({ time, x: worldX(longitude), y: worldY(latitude) })));
