// Counts vehicles in a grid over what is seen: a cell with many of them is drawn as one circle. The grid is fixed to the
// world, so that circles stay as the map is moved.
import { MOVING, SILENT, STOPPED } from "./words.js";

const CELL = 76; // pixels
const FEW = 18; // so many vehicles of a cell are drawn one by one
const FEW_NEAR = 60; // and from this zoom on so many
const NEAR_ZOOM = 10;

export class Clusters {
  constructor() {
    this.cells = 0;
    this.list = [];
  }

  // Put the vehicles of `view` that are seen, and not hidden by `mask`, into cells.
  count(view, camera, mask) {
    // Cells double with every whole zoom, so that they are the same ones while the map is moved or zoomed a little.
    const side = CELL / (256 * 2 ** Math.round(camera.zoom));
    const left = Math.floor(camera.worldX(0) / side) - 1;
    const top = Math.floor(camera.worldY(0) / side) - 1;
    this.columns = Math.ceil((camera.width / camera.scale) / side) + 3;
    this.rows = Math.ceil((camera.height / camera.scale) / side) + 3;
    const cells = this.columns * this.rows;
    if (cells > this.cells) {
      this.cells = cells;
      for (const name of ["total", "moving", "stopped", "silent", "late"]) this[name] = new Uint32Array(cells);
      this.sumX = new Float64Array(cells);
      this.sumY = new Float64Array(cells);
    } else {
      for (const name of ["total", "moving", "stopped", "silent", "late", "sumX", "sumY"]) this[name].fill(0);
    }
    if (!this.of || this.of.length < view.count) this.of = new Int32Array(Math.max(1024, view.count * 2));
    const { x, y, kind, flags } = view;
    let seen = 0;
    for (let n = 0; n < view.count; n += 1) {
      this.of[n] = -1;
      const state = kind[n];
      if (state === 0 || mask & (1 << state)) continue;
      const line = Math.floor(y[n] / side);
      const row = line - top;
      const column = Math.floor(x[n] / side - (line & 1) / 2) - left; // every other row is half a cell off
      if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) continue;
      const cell = row * this.columns + column;
      this.of[n] = cell;
      seen += 1;
      this.total[cell] += 1;
      this.sumX[cell] += x[n];
      this.sumY[cell] += y[n];
      if (state === MOVING) this.moving[cell] += 1;
      else if (state === STOPPED) this.stopped[cell] += 1;
      else if (state === SILENT) this.silent[cell] += 1;
      if (flags[n] & 6) this.late[cell] += 1;
    }
    this.few = camera.zoom >= NEAR_ZOOM ? FEW_NEAR : FEW;
    this.list.length = 0;
    for (let cell = 0; cell < cells; cell += 1) {
      const total = this.total[cell];
      if (total > this.few) this.list.push({ cell, total, x: this.sumX[cell] / total, y: this.sumY[cell] / total });
    }
    return seen;
  }

  // Whether a vehicle is drawn by itself.
  isAlone(n) {
    const cell = this.of[n];
    return cell >= 0 && this.total[cell] <= this.few;
  }

  // The circle at a point of the screen.
  at(screenX, screenY, camera) {
    return this.list.find((one) => Math.hypot(camera.screenX(one.x) - screenX, camera.screenY(one.y) - screenY) <= radiusOf(one.total)) ?? null;
  }
}

export function radiusOf(total) {
  return 10 + Math.min(22, Math.sqrt(total) * 1.4);
}
