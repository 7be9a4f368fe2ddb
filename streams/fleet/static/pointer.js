// The map by mouse and finger: drag, wheel, two fingers, double click; `pick(x, y)` for a click.
const CLICK_PIXELS = 6;
const WHEEL_STEP = 0.0022;
const LINE_PIXELS = 16;

export function movable(canvas, camera, pick, hover) {
  const fingers = new Map();
  let moved = 0;
  let spread = 0;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const middle = () => {
    const all = [...fingers.values()];
    return [all.reduce((sum, one) => sum + one[0], 0) / all.length, all.reduce((sum, one) => sum + one[1], 0) / all.length];
  };
  const distance = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 1) moved = 0;
    if (fingers.size === 2) spread = distance();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) {
      hover(...at(event));
      return;
    }
    const before = middle();
    fingers.set(event.pointerId, at(event));
    const after = middle();
    moved += Math.hypot(after[0] - before[0], after[1] - before[1]);
    if (moved > CLICK_PIXELS) camera.pan(after[0] - before[0], after[1] - before[1]);
    if (fingers.size === 2) {
      const now = distance();
      if (spread > 0 && now > 0) camera.zoomBy(Math.log2(now / spread), ...after);
      spread = now;
      moved = CLICK_PIXELS + 1;
    }
  });
  const lift = (event) => {
    const was = fingers.get(event.pointerId);
    fingers.delete(event.pointerId);
    if (event.type === "pointerup" && was && fingers.size === 0 && moved <= CLICK_PIXELS) pick(...was);
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("pointerleave", () => hover(-1, -1));
  canvas.addEventListener("dblclick", (event) => camera.zoomBy(1, ...at(event), true));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * LINE_PIXELS : event.deltaY;
    camera.zoomBy(-Math.max(-400, Math.min(400, pixels)) * WHEEL_STEP, ...at(event));
  }, { passive: false });
}
