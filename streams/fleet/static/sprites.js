// Pictures of vehicles, drawn once for each theme: an arrow moves, a square with two bars stands, a crossed ring is
// silent. The shape tells the state; the colour only helps.
import { MOVING, SILENT, STOPPED } from "./words.js";

export const HEADINGS = 48;
const BOX = 22;

export function makeSprites(ratio, colours) {
  const size = Math.ceil(BOX * ratio);
  const sheet = new OffscreenCanvas(size * (HEADINGS + 3), size);
  const context = sheet.getContext("2d");
  const at = (column, draw) => {
    context.setTransform(ratio, 0, 0, ratio, column * size + size / 2, size / 2);
    draw(context, colours);
  };
  for (let turn = 0; turn < HEADINGS; turn += 1) {
    at(turn, () => {
      context.rotate((turn / HEADINGS) * 2 * Math.PI);
      arrow(context, colours);
    });
  }
  at(HEADINGS, square);
  at(HEADINGS + 1, ring);
  at(HEADINGS + 2, badge);
  return { sheet, size, box: BOX };
}

// Column of the sheet for a vehicle.
export function columnOf(kind, angle) {
  if (kind === STOPPED) return HEADINGS;
  if (kind === SILENT) return HEADINGS + 1;
  const turn = Math.round((angle / (2 * Math.PI)) * HEADINGS) % HEADINGS;
  return turn < 0 ? turn + HEADINGS : turn;
}
export const BADGE = HEADINGS + 2;

function arrow(context, colours) {
  context.beginPath();
  context.moveTo(0, -8);
  context.lineTo(5.4, 6);
  context.lineTo(0, 3);
  context.lineTo(-5.4, 6);
  context.closePath();
  context.lineJoin = "round";
  context.lineWidth = 3;
  context.strokeStyle = colours.halo;
  context.stroke();
  context.fillStyle = colours.moving;
  context.fill();
}

function square(context, colours) {
  context.beginPath();
  context.roundRect(-5, -5, 10, 10, 2.5);
  context.lineWidth = 2.4;
  context.strokeStyle = colours.halo;
  context.stroke();
  context.fillStyle = colours.stopped;
  context.fill();
  context.fillStyle = colours.halo;
  context.fillRect(-2.6, -2.6, 1.7, 5.2);
  context.fillRect(0.9, -2.6, 1.7, 5.2);
}

function ring(context, colours) {
  context.lineWidth = 3.6;
  context.strokeStyle = colours.halo;
  for (const [width, colour] of [[4, colours.halo], [1.7, colours.silent]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.beginPath();
    context.arc(0, 0, 4.6, 0, 2 * Math.PI);
    context.moveTo(-4.6, 4.6);
    context.lineTo(4.6, -4.6);
    context.stroke();
  }
}

function badge(context, colours) {
  context.beginPath();
  context.arc(0, 0, 5.2, 0, 2 * Math.PI);
  context.fillStyle = colours.late;
  context.fill();
  context.lineWidth = 1.2;
  context.strokeStyle = colours.halo;
  context.stroke();
  context.fillStyle = colours.badge;
  context.fillRect(-0.9, -3.4, 1.8, 4.2);
  context.fillRect(-0.9, 1.7, 1.8, 1.7);
}

export function legendPicture(canvas, kind, ratio, colours) {
  canvas.width = canvas.height = BOX * ratio;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, (BOX * ratio) / 2, (BOX * ratio) / 2);
  if (kind === MOVING) context.rotate(Math.PI / 4);
  ({ [MOVING]: arrow, [STOPPED]: square, [SILENT]: ring })[kind]?.(context, colours);
  if (kind === 0) badge(context, colours);
}
