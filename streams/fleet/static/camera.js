// What part of the world is shown: its middle and the zoom, as of maps on the web (256 pixels at zoom 0).
const ZOOM_MIN = 1.5;
const ZOOM_MAX = 17;
const MOVE_MS = 350;
const FIT_MARGIN = 60;

export class Camera {
  constructor(onChange) {
    this.x = 0.53;
    this.y = 0.34;
    this.zoom = 4;
    this.width = 1;
    this.height = 1;
    this.left = 0; // pixels at the left and bottom that something covers
    this.bottom = 0;
    this.onChange = onChange;
    this.goal = null;
    this.interactedAt = 0;
  }

  get scale() {
    return 256 * 2 ** this.zoom;
  }

  resize(width, height) {
    this.width = width;
    this.height = height;
    this.onChange();
  }

  screenX(x) {
    return (x - this.x) * this.scale + this.width / 2;
  }

  screenY(y) {
    return (y - this.y) * this.scale + this.height / 2;
  }

  worldX(screen) {
    return this.x + (screen - this.width / 2) / this.scale;
  }

  worldY(screen) {
    return this.y + (screen - this.height / 2) / this.scale;
  }

  pan(dx, dy) {
    this.goal = null;
    this.#set(this.x - dx / this.scale, this.y - dy / this.scale, this.zoom);
  }

  // Zoom by so much, the place under a point stays there.
  zoomBy(steps, screenX = this.width / 2, screenY = this.height / 2, smooth = false) {
    const from = smooth && this.goal ? this.goal : this;
    const zoom = Math.max(ZOOM_MIN, Math.min(ZOOM_MAX, from.zoom + steps));
    const scale = 256 * 2 ** zoom;
    const x = this.worldX(screenX) - (screenX - this.width / 2) / scale;
    const y = this.worldY(screenY) - (screenY - this.height / 2) / scale;
    if (smooth) this.flyTo(x, y, zoom);
    else {
      this.goal = null;
      this.#set(x, y, zoom);
    }
  }

  flyTo(x, y, zoom = this.zoom) {
    const kept = Math.max(ZOOM_MIN, Math.min(ZOOM_MAX, zoom));
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      this.#set(x, y, kept);
      return;
    }
    this.goal = { x, y, zoom: kept, from: { x: this.x, y: this.y, zoom: this.zoom }, at: performance.now() };
    this.onChange();
  }

  // Show a part of the world, not covered by anything.
  fit({ left, top, right, bottom }, smooth = true) {
    const width = Math.max(80, this.width - this.left - 2 * FIT_MARGIN);
    const height = Math.max(80, this.height - this.bottom - 2 * FIT_MARGIN);
    const zoom = Math.min(14, Math.log2(Math.min(width / Math.max(right - left, 1e-9), height / Math.max(bottom - top, 1e-9)) / 256));
    const scale = 256 * 2 ** Math.max(ZOOM_MIN, zoom);
    const x = (left + right) / 2 - this.left / 2 / scale;
    const y = (top + bottom) / 2 + this.bottom / 2 / scale;
    if (smooth) this.flyTo(x, y, zoom);
    else this.#set(x, y, Math.max(ZOOM_MIN, zoom));
  }

  // Go on with a flight; whether there is one.
  step(now) {
    if (this.goal === null) return false;
    const { from, at, ...goal } = this.goal;
    const share = Math.min(1, (now - at) / MOVE_MS);
    const eased = 1 - (1 - share) ** 3;
    const kept = this.goal;
    this.#set(from.x + (goal.x - from.x) * eased, from.y + (goal.y - from.y) * eased, from.zoom + (goal.zoom - from.zoom) * eased);
    this.goal = share < 1 ? kept : null;
    return true;
  }

  #set(x, y, zoom) {
    this.x = ((x % 1) + 1) % 1;
    this.y = Math.max(0, Math.min(1, y));
    this.zoom = Math.max(ZOOM_MIN, Math.min(ZOOM_MAX, zoom));
    this.interactedAt = performance.now();
    this.onChange();
  }
}
