// Draws the vehicles: tails, circles of many, each one by itself, and what is chosen.
import { radiusOf } from "./clusters.js";
import { BADGE, columnOf } from "./sprites.js";
import { AT_RISK_BIT, LATE_BIT, TAIL } from "./vehicles.js";
import { MOVING, count } from "./words.js";

const NAMES_ZOOM = 11.5;
const NAMES_MAX = 120;
const TAILS_ZOOM = 6;
const MARGIN = 20;

export function drawFleet(context, view, camera, clusters, sprites, ratio, colours, chosen) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, camera.width, camera.height);
  if (chosen.trail) trail(context, chosen.trail, view, chosen.number, camera, colours);
  if (view.tails && camera.zoom >= TAILS_ZOOM) tails(context, view, camera, clusters, colours);
  context.setTransform(1, 0, 0, 1, 0, 0);
  const drawn = one(context, view, camera, clusters, sprites, ratio, chosen.number);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  circles(context, camera, clusters, colours);
  if (camera.zoom >= NAMES_ZOOM && drawn <= NAMES_MAX) names(context, view, camera, clusters, colours);
  if (chosen.number !== null && view.kind[chosen.number]) ringed(context, view, camera, sprites, colours, chosen);
  return drawn;
}

function one(context, view, camera, clusters, sprites, ratio, chosen) {
  const { x, y, kind, angle, flags } = view;
  const { sheet, size } = sprites;
  const half = size / 2;
  const scale = camera.scale * ratio;
  const left = (camera.width / 2) * ratio - camera.x * scale;
  const top = (camera.height / 2) * ratio - camera.y * scale;
  const right = (camera.width + MARGIN) * ratio;
  const bottom = (camera.height + MARGIN) * ratio;
  let drawn = 0;
  for (let n = 0; n < view.count; n += 1) {
    if (!clusters.isAlone(n) || n === chosen) continue;
    const px = x[n] * scale + left;
    const py = y[n] * scale + top;
    if (px < -MARGIN || py < -MARGIN || px > right || py > bottom) continue;
    context.drawImage(sheet, columnOf(kind[n], angle[n]) * size, 0, size, size, Math.round(px - half), Math.round(py - half), size, size);
    if (flags[n] & (AT_RISK_BIT | LATE_BIT)) context.drawImage(sheet, BADGE * size, 0, size, size, Math.round(px - half + 8 * ratio), Math.round(py - half - 8 * ratio), size, size);
    drawn += 1;
  }
  return drawn;
}

// Tails fade in three steps: all vehicles' parts of one step are one path.
function tails(context, view, camera, clusters, colours) {
  context.lineCap = "round";
  context.lineJoin = "round";
  context.strokeStyle = colours.moving;
  const { tailX, tailY, tailAt, tailLength, kind } = view;
  const scale = camera.scale;
  const left = camera.width / 2 - camera.x * scale;
  const top = camera.height / 2 - camera.y * scale;
  for (const [first, last, alpha, width] of [[0, 4, 0.45, 2.4], [4, 8, 0.25, 1.8], [8, TAIL, 0.12, 1.4]]) {
    context.globalAlpha = alpha;
    context.lineWidth = width;
    context.beginPath();
    for (let n = 0; n < view.count; n += 1) {
      if (kind[n] !== MOVING || tailLength[n] <= first || !clusters.isAlone(n)) continue;
      // The newest place is where the vehicle is on its way to: the tail begins where it is shown.
      let px = first === 0 ? view.x[n] * scale + left : NaN;
      let py = first === 0 ? view.y[n] * scale + top : NaN;
      if (first === 0) context.moveTo(px, py);
      for (let back = first + 1; back <= Math.min(last, tailLength[n] - 1); back += 1) {
        const at = n * TAIL + ((tailAt[n] - 1 - back + 2 * TAIL) % TAIL);
        if (Number.isNaN(px)) {
          const before = n * TAIL + ((tailAt[n] - back + 2 * TAIL) % TAIL);
          context.moveTo(tailX[before] * scale + left, tailY[before] * scale + top);
        }
        px = tailX[at] * scale + left;
        py = tailY[at] * scale + top;
        context.lineTo(px, py);
      }
    }
    context.stroke();
  }
  context.globalAlpha = 1;
}

function trail(context, points, view, number, camera, colours) {
  if (points.length === 0) return;
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const [colour, width] of [[colours.halo, 6], [colours.trail, 3]]) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    points.forEach((point, at) => context[at ? "lineTo" : "moveTo"](camera.screenX(point.x), camera.screenY(point.y)));
    if (number !== null && view.kind[number]) context.lineTo(camera.screenX(view.x[number]), camera.screenY(view.y[number]));
    context.stroke();
  }
  context.fillStyle = colours.trail;
  context.beginPath();
  context.arc(camera.screenX(points[0].x), camera.screenY(points[0].y), 4, 0, 2 * Math.PI);
  context.fill();
}

// A circle for many vehicles: their number, and a rim with the shares of moving, stopped and silent ones.
function circles(context, camera, clusters, colours) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  for (const one of clusters.list) {
    const x = camera.screenX(one.x);
    const y = camera.screenY(one.y);
    const radius = radiusOf(one.total);
    context.fillStyle = colours.circle;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
    context.lineWidth = 4;
    let from = -Math.PI / 2;
    for (const name of ["moving", "stopped", "silent"]) {
      const until = from + (clusters[name][one.cell] / one.total) * 2 * Math.PI;
      if (until > from) {
        context.strokeStyle = colours[name];
        context.setLineDash(name === "silent" ? [2, 2] : []);
        context.beginPath();
        context.arc(x, y, radius, from, until);
        context.stroke();
      }
      from = until;
    }
    context.setLineDash([]);
    context.fillStyle = colours.ink;
    context.font = `600 ${one.total > 999 ? 11 : 12.5}px system-ui, sans-serif`;
    context.fillText(one.total > 9999 ? `${Math.round(one.total / 1000)}k` : count(one.total), x, y + 0.5);
  }
  context.textAlign = "start";
}

function names(context, view, camera, clusters, colours) {
  context.font = "500 11px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineJoin = "round";
  context.lineWidth = 3;
  context.strokeStyle = colours.halo;
  context.fillStyle = colours.ink;
  for (let n = 0; n < view.count; n += 1) {
    if (!clusters.isAlone(n)) continue;
    const x = camera.screenX(view.x[n]) + 12;
    const y = camera.screenY(view.y[n]);
    context.strokeText(view.ids[n], x, y);
    context.fillText(view.ids[n], x, y);
  }
}

function ringed(context, view, camera, sprites, colours, chosen) {
  const n = chosen.number;
  const x = camera.screenX(view.x[n]);
  const y = camera.screenY(view.y[n]);
  const { sheet, size, box } = sprites;
  context.lineWidth = 3;
  context.strokeStyle = colours.trail;
  context.fillStyle = colours.circle;
  context.beginPath();
  context.arc(x, y, 16, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.drawImage(sheet, columnOf(view.kind[n], view.angle[n]) * size, 0, size, size, x - box / 2, y - box / 2, box, box);
  if (view.flags[n] & (AT_RISK_BIT | LATE_BIT)) context.drawImage(sheet, BADGE * size, 0, size, size, x + 4, y - 22, box, box);
  context.font = "700 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  context.lineJoin = "round";
  context.strokeStyle = colours.halo;
  context.fillStyle = colours.ink;
  context.strokeText(view.ids[n], x + 22, y);
  context.fillText(view.ids[n], x + 22, y);
}
