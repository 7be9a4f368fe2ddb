// The page by keyboard.
import { byId } from "./dom.js";

const STEP = 90;
const SEEK_MS = 30000;

export function listenToKeys({ camera, next, fit, close, replay, otherTheme, follow }) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target;
    const typing = target instanceof HTMLInputElement && target.type === "search";
    if (event.key === "Escape") {
      if (typing && target.value) {
        target.value = "";
        target.dispatchEvent(new Event("input"));
      } else if (typing) target.blur();
      else close();
      return;
    }
    if (typing || target instanceof HTMLSelectElement) return;
    const onMap = target === byId("vehicles") || target === document.body;
    const acts = {
      "/": () => byId("search").focus(),
      n: () => next(1),
      p: () => next(-1),
      "+": () => camera.zoomBy(0.5, undefined, undefined, true),
      "=": () => camera.zoomBy(0.5, undefined, undefined, true),
      "-": () => camera.zoomBy(-0.5, undefined, undefined, true),
      0: () => fit(),
      f: follow,
      t: otherTheme,
      l: () => replay.live(),
      ",": () => replay.seek((replay.moment ?? replay.now()) - SEEK_MS),
      ".": () => !replay.isLive && replay.seek(replay.moment + SEEK_MS),
    };
    if (onMap) {
      Object.assign(acts, {
        ArrowLeft: () => camera.pan(STEP, 0),
        ArrowRight: () => camera.pan(-STEP, 0),
        ArrowUp: () => camera.pan(0, STEP),
        ArrowDown: () => camera.pan(0, -STEP),
        " ": () => replay.toggle(),
      });
    }
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
}
