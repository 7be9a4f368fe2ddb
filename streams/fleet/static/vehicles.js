// The vehicles in columns: where each is, where it goes, and how it is drawn. Between two reports a vehicle is moved
// from where it is shown to where it was reported, in the time between the two.
import { DEGREE, NOWHERE, UNKNOWN } from "./frames.js";
import { worldX, worldY } from "./mercator.js";
import { MOVING, SILENT, STOPPED } from "./words.js";

export const TAIL = 12; // places of each vehicle that its tail is drawn of
const TAIL_VEHICLES_MAX = 20000; // more vehicles have no tails
const TAIL_STEP = 4e-7; // of the world: 16 m at the equator
const MOVE_MS_MIN = 200;
const MOVE_MS_MAX = 12000;
const JUMP = 2e-3; // of the world: farther than this nobody drives between two reports
export const AT_RISK_BIT = 2;
export const LATE_BIT = 4;
const STOPPED_BIT = 1;
const FIRST = 4096;

export class Vehicles {
  constructor() {
    this.reset();
  }

  reset() {
    this.count = 0;
    this.ids = [];
    this.numbers = new Map();
    this.epoch = 0;
    this.silentAfter = 600000;
    this.serverAhead = 0; // milliseconds that the server's clock is ahead of ours
    this.size = 0;
    this.tails = true;
    this.#grow(FIRST);
  }

  #grow(size) {
    const longer = (kind, old, of = 1) => {
      const made = new kind(size * of);
      if (old) made.set(old.subarray(0, Math.min(old.length, made.length)));
      return made;
    };
    for (const name of ["x", "y", "fromX", "fromY", "toX", "toY", "time", "movedAt"]) this[name] = longer(Float64Array, this.size ? this[name] : null);
    for (const name of ["moveMs", "speed", "angle"]) this[name] = longer(Float32Array, this.size ? this[name] : null);
    for (const name of ["flags", "kind"]) this[name] = longer(Uint8Array, this.size ? this[name] : null);
    this.tails = size <= TAIL_VEHICLES_MAX * 2;
    this.tailX = this.tails ? longer(Float32Array, this.size ? this.tailX : null, TAIL) : null;
    this.tailY = this.tails ? longer(Float32Array, this.size ? this.tailY : null, TAIL) : null;
    this.tailAt = longer(Uint8Array, this.size ? this.tailAt : null);
    this.tailLength = longer(Uint8Array, this.size ? this.tailLength : null);
    this.size = size;
  }

  // Ids of vehicles from a number on.
  name({ first, ids }) {
    while (first + ids.length > this.size) this.#grow(this.size * 2);
    ids.forEach((id, at) => {
      this.ids[first + at] = id;
      this.numbers.set(id, first + at);
    });
    this.count = Math.max(this.count, first + ids.length);
  }

  // Take new positions over.
  take(told, now) {
    this.serverAhead = told.now - Date.now();
    for (let i = 0; i < told.count; i += 1) {
      const n = told.vehicle[i];
      if (n >= this.size) continue;
      this.flags[n] = told.state[i];
      this.speed[n] = told.speed[i] === UNKNOWN ? NaN : told.speed[i] / 10;
      const isNew = this.time[n] === 0;
      const elapsed = told.time[i] - this.time[n];
      this.time[n] = told.time[i];
      if (told.latitude[i] === NOWHERE) {
        this.kind[n] = 0;
        this.toX[n] = NaN;
        continue;
      }
      const x = worldX(told.longitude[i] / DEGREE);
      const y = worldY(told.latitude[i] / DEGREE);
      const dx = x - this.toX[n];
      const dy = y - this.toY[n];
      if (told.heading[i] !== UNKNOWN) this.angle[n] = (told.heading[i] / 100 / 180) * Math.PI;
      else if (!isNew && dx * dx + dy * dy > 1e-16) this.angle[n] = Math.atan2(dx, -dy);
      const jumps = isNew || Math.hypot(x - this.x[n], y - this.y[n]) > JUMP;
      this.fromX[n] = jumps ? x : this.x[n];
      this.fromY[n] = jumps ? y : this.y[n];
      this.toX[n] = x;
      this.toY[n] = y;
      this.movedAt[n] = now;
      this.moveMs[n] = Math.max(MOVE_MS_MIN, Math.min(MOVE_MS_MAX, elapsed || MOVE_MS_MIN));
      if (jumps) {
        this.x[n] = x;
        this.y[n] = y;
        this.tailLength[n] = 0;
      }
      this.#tail(n, x, y);
    }
  }

  #tail(n, x, y) {
    if (!this.tails) return;
    const last = n * TAIL + ((this.tailAt[n] + TAIL - 1) % TAIL);
    if (this.tailLength[n] && Math.abs(this.tailX[last] - x) + Math.abs(this.tailY[last] - y) < TAIL_STEP) return;
    const at = n * TAIL + this.tailAt[n];
    this.tailX[at] = x;
    this.tailY[at] = y;
    this.tailAt[n] = (this.tailAt[n] + 1) % TAIL;
    if (this.tailLength[n] < TAIL) this.tailLength[n] += 1;
  }

  serverNow() {
    return Date.now() + this.serverAhead;
  }

  // Where everybody is at this moment of `performance.now()`, and in which state.
  step(now) {
    const silentBefore = this.serverNow() - this.silentAfter;
    const { x, y, fromX, fromY, toX, toY, movedAt, moveMs, time, flags, kind } = this;
    for (let n = 0; n < this.count; n += 1) {
      if (time[n] === 0 || Number.isNaN(toX[n])) {
        kind[n] = 0;
        continue;
      }
      const share = Math.min(1, (now - movedAt[n]) / moveMs[n]);
      x[n] = fromX[n] + (toX[n] - fromX[n]) * share;
      y[n] = fromY[n] + (toY[n] - fromY[n]) * share;
      kind[n] = time[n] < silentBefore ? SILENT : flags[n] & STOPPED_BIT ? STOPPED : MOVING;
    }
  }

  // The state of a vehicle, where it is not drawn too.
  stateOf(n) {
    if (this.time[n] === 0) return 0;
    if (this.time[n] < this.serverNow() - this.silentAfter) return SILENT;
    return this.flags[n] & STOPPED_BIT ? STOPPED : MOVING;
  }
}
