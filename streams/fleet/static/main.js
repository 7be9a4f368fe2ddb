// The fleet page: puts the parts together and draws.
import { drawBasemap } from "./basemap.js";
import { Camera } from "./camera.js";
import { Clusters } from "./clusters.js";
import { byId, element, put, say } from "./dom.js";
import { drawFleet } from "./draw.js";
import { listenToKeys } from "./keys.js";
import { kilometresAt } from "./mercator.js";
import { Panel } from "./panel.js";
import { Past, trailOf } from "./past.js";
import { movable } from "./pointer.js";
import { Replay } from "./replay.js";
import { Side } from "./side.js";
import { legendPicture, makeSprites } from "./sprites.js";
import { ask, follow } from "./stream.js";
import { colours, startTheme } from "./theme.js";
import { Tiles } from "./tiles.js";
import { Vehicles } from "./vehicles.js";
import { STATE_WORDS, clockS, count, speed } from "./words.js";
import { loadWorld, nearest } from "./world.js";

const FRAME_MS = 30; // between two pictures while nobody moves the map
const PICK_PIXELS = 16;
const HEARD_LATE_MS = 4000;
const ZOOM_OF_ONE = 11;
const NARROW = 820;

const ground = byId("ground");
const canvas = byId("vehicles");
const groundContext = ground.getContext("2d", { alpha: false });
const context = canvas.getContext("2d");
// What was drawn, for measurements and tests.
const figures = { pictures: 0, drawMs: 0, drawn: 0, messages: 0, positions: 0 };
globalThis.fleetFigures = figures;

let ratio = 1;
let paint = colours();
let sprites = null;
let world = null;
let tiles = null;
let groundIsOld = true;
let fitted = false;
let feeds = [];
let drawnAt = 0;
let heardAt = 0;
let mask = 0;
let masked = false;
const chosen = { number: null, trail: null, follows: false };
const notices = new Map();

const vehicles = new Vehicles();
const past = new Past(vehicles);
const clusters = new Clusters();
const camera = new Camera(() => {
  groundIsOld = true;
});
const replay = new Replay({ past, now: () => vehicles.serverNow(), onChange: modeChanged, wrong: (text) => notice("replay", text, 6000) });
const view = () => (replay.isLive || past.count === 0 ? vehicles : past);
const inView = (n) => {
  const shown = view();
  if (!shown.kind[n]) return masked && vehicles.time[n] !== 0;
  const x = camera.screenX(shown.x[n]);
  const y = camera.screenY(shown.y[n]);
  return x > camera.left && y > 0 && x < camera.width && y < camera.height - camera.bottom;
};
const side = new Side({
  vehicles, view, inView, choose,
  filter(hidden) {
    mask = hidden;
  },
});
const panel = new Panel({ near: (latitude, longitude) => nearest(world, latitude, longitude), feeds: () => feeds });

// --- what is said above the map ---------------------------------------------------------------------------------------
function notice(name, text, passesMs = 0) {
  if (text) notices.set(name, text);
  else notices.delete(name);
  const wanted = [...notices.values()];
  const list = byId("notices");
  if (wanted.join("\n") !== [...list.children].map((one) => one.textContent).join("\n")) list.replaceChildren(...wanted.map((one) => element("li", "", one)));
  if (text && passesMs) setTimeout(() => notice(name, ""), passesMs);
}

function state(text, isGood = true) {
  put(byId("state"), text);
  byId("state").classList.toggle("bad", !isGood);
}

// --- choosing ---------------------------------------------------------------------------------------------------------
function choose(number, moves = false) {
  if (number === null || !vehicles.ids[number]) {
    close();
    return;
  }
  const isOther = chosen.number !== number;
  if (isOther) Object.assign(chosen, { number, trail: null });
  side.chosen = number;
  panel.open(number, vehicles.epoch, vehicles.ids[number]);
  history.replaceState(null, "", `#${encodeURIComponent(vehicles.ids[number])}`);
  if (isOther) {
    trailOf(number, vehicles.epoch).then((points) => {
      if (chosen.number === number) chosen.trail = points;
    }).catch((error) => notice("trail", `its trail: ${error.message}`, 6000));
    const shown = view();
    say(`${vehicles.ids[number]}, ${STATE_WORDS[vehicles.stateOf(number)]}, ${speed(shown.speed[number])}`);
  }
  if (innerWidth <= NARROW) side.sheet(false);
  covered();
  if (moves) showChosen();
  side.show();
}

function close() {
  Object.assign(chosen, { number: null, trail: null });
  setFollow(false);
  side.chosen = null;
  panel.close();
  history.replaceState(null, "", location.pathname);
  covered();
  side.show();
}

function showChosen() {
  const shown = view();
  if (chosen.number === null || !shown.kind[chosen.number]) return;
  const zoom = Math.max(camera.zoom, ZOOM_OF_ONE);
  const scale = 256 * 2 ** zoom;
  camera.flyTo(shown.x[chosen.number] - (camera.left - camera.right) / 2 / scale, shown.y[chosen.number] + camera.bottom / 2 / scale, zoom);
}

function setFollow(follows) {
  chosen.follows = follows;
  byId("follow").setAttribute("aria-pressed", String(follows));
  if (follows) showChosen();
}

// The next of the vehicles that are listed.
function next(step) {
  const { numbers } = side.found(100000);
  if (numbers.length === 0) return;
  const at = numbers.indexOf(chosen.number);
  choose(numbers[at < 0 ? 0 : (at + step + numbers.length) % numbers.length], false);
}

function pick(x, y) {
  const found = at(x, y);
  if (found !== null) {
    choose(found);
    return;
  }
  const circle = clusters.at(x, y, camera);
  if (circle) camera.flyTo(circle.x, circle.y, camera.zoom + 2);
}

function at(x, y) {
  const shown = view();
  let best = null;
  let least = PICK_PIXELS;
  for (let n = 0; n < shown.count; n += 1) {
    if (!clusters.isAlone(n)) continue;
    const distance = Math.hypot(camera.screenX(shown.x[n]) - x, camera.screenY(shown.y[n]) - y);
    if (distance < least) [best, least] = [n, distance];
  }
  return best;
}

function hover(x, y) {
  const hint = byId("hint");
  const found = x < 0 ? null : at(x, y);
  canvas.classList.toggle("over", found !== null);
  hint.hidden = found === null;
  if (found === null) return;
  const shown = view();
  hint.replaceChildren(element("b", "", vehicles.ids[found]), `${STATE_WORDS[shown.kind[found]]}, ${speed(shown.speed[found])}`);
  hint.style.left = `${Math.min(x + 14, camera.width - hint.offsetWidth - 8)}px`;
  hint.style.top = `${Math.max(4, y - hint.offsetHeight - 10)}px`;
}

// --- news of the server -----------------------------------------------------------------------------------------------
function take(message) {
  figures.messages += 1;
  heardAt = performance.now();
  if (message.hello) hello(message.hello);
  else if (message.names) vehicles.name(message.names);
  else if (message.positions) {
    figures.positions += message.positions.count;
    vehicles.take(message.positions, performance.now());
    extendTrail(message.positions);
  } else if (message.news) news(message.news);
}

function hello(told) {
  const name = chosen.number === null ? wanted() : vehicles.ids[chosen.number];
  if (vehicles.epoch !== told.epoch) {
    vehicles.reset();
    past.count = past.from = past.until = 0;
    if (chosen.number !== null) close();
    if (name) pending = name;
  }
  vehicles.epoch = told.epoch;
  vehicles.silentAfter = told.silent_after_ms;
  feeds = told.feeds;
  masked = told.masked;
  byId("replay").hidden = masked;
  byId("counts").hidden = false;
  byId("risk-count").hidden = !feeds.includes("orders");
  byId("tab-orders").hidden = !feeds.includes("orders");
  notice("masked", masked ? "Positions are personal data, which your token does not permit to see" : "");
}

let pending = null; // a vehicle that the address names, until it is known
function wanted() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
}

function news(told) {
  side.take(told);
  state(`${count(told.vehicles)} vehicles, ${count(told.orders)} orders under way, as of ${clockS(told.now)}`);
  notice("behind", told.behind ? `Reading the last hour: ${count(told.partitions - told.behind)} of ${count(told.partitions)} partitions are up to date` : "");
  notice("beyond", told.beyond ? "There are more vehicles than the map holds: the others are not shown" : "");
  notice("problems", told.problems.join("; "));
  replay.write();
  if (pending !== null && vehicles.numbers.has(pending)) {
    choose(vehicles.numbers.get(pending), true);
    pending = null;
  }
  if (chosen.number !== null) panel.state(STATE_WORDS[view().kind[chosen.number] || vehicles.stateOf(chosen.number)]);
  if (!fitted && told.vehicles > 0 && fit(false)) fitted = true;
}

function extendTrail(told) {
  if (chosen.number === null || chosen.trail === null) return;
  const last = chosen.trail.at(-1);
  const n = chosen.number;
  if (told.vehicle.includes(n) && (!last || vehicles.time[n] > last.time)) chosen.trail.push({ time: vehicles.time[n], x: vehicles.toX[n], y: vehicles.toY[n] });
}

// Show where the vehicles are: without the few that are far from all others. Whether there are any.
function fit(smooth = true) {
  const shown = view();
  const xs = [];
  const ys = [];
  for (let n = 0; n < shown.count; n += 1) {
    if (!shown.kind[n] && !(shown === vehicles && vehicles.time[n] && vehicles.toX[n])) continue;
    xs.push(shown === vehicles ? vehicles.toX[n] : shown.x[n]);
    ys.push(shown === vehicles ? vehicles.toY[n] : shown.y[n]);
  }
  if (xs.length === 0) return false;
  xs.sort((a, b) => a - b);
  ys.sort((a, b) => a - b);
  const share = (all, of) => all[Math.min(all.length - 1, Math.floor(all.length * of))];
  covered();
  camera.fit({ left: share(xs, 0.01), right: share(xs, 0.99), top: share(ys, 0.01), bottom: share(ys, 0.99) }, smooth);
  return true;
}

// A line of a round number of kilometres.
function writeScale() {
  const kmPerPixel = kilometresAt(camera.y) / camera.scale;
  const most = kmPerPixel * 110;
  const step = 10 ** Math.floor(Math.log10(most));
  const km = [5, 2, 1].map((one) => one * step).find((one) => one <= most);
  put(byId("scale"), km >= 1 ? `${count(km)} km` : `${count(km * 1000)} m`);
  byId("scale").style.width = `${Math.round(km / kmPerPixel)}px`;
}

function modeChanged() {
  if (replay.isLive) vehicles.step(performance.now());
}

// --- drawing ----------------------------------------------------------------------------------------------------------
function covered() {
  const narrow = innerWidth <= NARROW;
  camera.left = narrow ? 0 : 356;
  camera.right = narrow || byId("panel").hidden ? 0 : 466;
  camera.bottom = narrow ? (byId("panel").hidden ? 200 : camera.height * 0.6) : 66;
}

function resize() {
  ratio = Math.min(2, devicePixelRatio || 1);
  const box = byId("map").getBoundingClientRect();
  for (const one of [ground, canvas]) {
    one.width = Math.round(box.width * ratio);
    one.height = Math.round(box.height * ratio);
  }
  sprites = makeSprites(ratio, paint);
  camera.resize(box.width, box.height);
  covered();
}

function repaint() {
  paint = colours();
  sprites = makeSprites(ratio, paint);
  for (const one of byId("legend").querySelectorAll("canvas")) legendPicture(one, Number(one.dataset.kind), 2, paint);
  groundIsOld = true;
}

function frame(now) {
  requestAnimationFrame(frame);
  const isMoved = camera.step(now) || groundIsOld;
  if (!isMoved && now - drawnAt < FRAME_MS) return;
  drawnAt = now;
  const began = performance.now();
  replay.step(now);
  if (replay.isLive) vehicles.step(began);
  const shown = view();
  if (chosen.follows && chosen.number !== null && shown.kind[chosen.number] && camera.goal === null) {
    const scale = camera.scale;
    const x = shown.x[chosen.number] - (camera.left - camera.right) / 2 / scale;
    const y = shown.y[chosen.number] + camera.bottom / 2 / scale;
    if (Math.hypot(x - camera.x, y - camera.y) * scale > 0.5) camera.pan((camera.x - x) * scale, (camera.y - y) * scale);
  }
  if (groundIsOld) {
    drawBasemap(groundContext, camera, ratio, world, tiles, paint);
    writeScale();
    groundIsOld = false;
  }
  clusters.count(shown, camera, mask);
  figures.drawn = drawFleet(context, shown, camera, clusters, sprites, ratio, paint, chosen);
  figures.pictures += 1;
  figures.drawMs += performance.now() - began;
}

// --- start ------------------------------------------------------------------------------------------------------------
function start() {
  const otherTheme = startTheme(byId("theme"), repaint);
  repaint();
  new ResizeObserver(resize).observe(byId("map"));
  resize();
  movable(canvas, camera, pick, hover);
  canvas.addEventListener("pointerdown", () => setFollow(false));
  byId("in").addEventListener("click", () => camera.zoomBy(1, undefined, undefined, true));
  byId("out").addEventListener("click", () => camera.zoomBy(-1, undefined, undefined, true));
  byId("fit").addEventListener("click", () => fit());
  byId("close").addEventListener("click", () => {
    close();
    canvas.focus();
  });
  byId("show").addEventListener("click", showChosen);
  byId("follow").addEventListener("click", () => setFollow(!chosen.follows));
  listenToKeys({ camera, next, fit, close, replay, otherTheme, follow: () => chosen.number !== null && setFollow(!chosen.follows) });
  addEventListener("hashchange", () => {
    const name = wanted();
    if (name !== null && vehicles.numbers.has(name)) choose(vehicles.numbers.get(name), true);
  });
  pending = wanted();
  requestAnimationFrame(frame);
  follow(take, (text, isGood) => state(text, isGood));
  setInterval(() => {
    if (heardAt && performance.now() - heardAt > HEARD_LATE_MS) state("no news, the map stands still", false);
    side.show();
  }, 1000);
  ask("setup").then(setUp).catch((error) => notice("setup", error.message));
  loadWorld().then((found) => {
    world = found;
    groundIsOld = true;
  }).catch((error) => notice("world", error.message));
}

function setUp(told) {
  put(byId("cluster"), told.cluster);
  if (told.tiles) {
    tiles = new Tiles(told.tiles, () => {
      groundIsOld = true;
    });
    put(byId("credit"), told.attribution);
    groundIsOld = true;
  }
  if (told.csrf) {
    byId("signout").hidden = false;
    byId("signout").elements.csrf.value = told.csrf;
  }
}

start();
