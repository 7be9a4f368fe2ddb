// Minutes of a vehicle: kilometres as bars, the greatest speed as a line.
import { drawing, element } from "./dom.js";
import { clock } from "./words.js";

const WIDTH = 360;
const HEIGHT = 92;
const MINUTE_MS = 60000;

export function minutesChart(minutes, now) {
  const box = element("div");
  if (minutes.length === 0) {
    box.append(element("p", "quiet", "no minute of the last hour is complete yet"));
    return box;
  }
  const end = Math.max(minutes.at(-1).start + MINUTE_MS, Math.floor(now / MINUTE_MS) * MINUTE_MS);
  const start = Math.min(minutes[0].start, end - 15 * MINUTE_MS);
  const slots = Math.max(1, (end - start) / MINUTE_MS);
  const step = WIDTH / slots;
  const kmMax = Math.max(0.1, ...minutes.map((one) => one.km));
  const kmhMax = Math.max(10, ...minutes.map((one) => one.kmh ?? 0));
  const total = minutes.reduce((sum, one) => sum + one.km, 0);
  const svg = drawing("svg", {
    class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${total.toFixed(1)} km in ${minutes.length} minutes from ${clock(minutes[0].start)}; at most ${Math.round(kmhMax)} km/h`,
  });
  svg.append(drawing("line", { x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }));
  const points = [];
  for (const one of minutes) {
    const x = ((one.start - start) / MINUTE_MS) * step;
    const height = (one.km / kmMax) * (HEIGHT - 8);
    const bar = drawing("rect", { x: x + step * 0.12, width: step * 0.76, y: HEIGHT - height, height, rx: Math.min(1.5, step / 4) });
    const title = drawing("title");
    title.textContent = `${clock(one.start)}: ${one.km.toFixed(2)} km${one.kmh === null ? "" : `, at most ${Math.round(one.kmh)} km/h`}`;
    bar.append(title);
    svg.append(bar);
    if (one.kmh !== null) points.push(`${(x + step / 2).toFixed(1)},${(HEIGHT - (one.kmh / kmhMax) * (HEIGHT - 8)).toFixed(1)}`);
  }
  if (points.length > 1) svg.append(drawing("polyline", { points: points.join(" ") }));
  const axis = element("p", "axis");
  axis.append(element("span", "", clock(start)), element("span", "", clock(end)));
  const key = element("p", "quiet key");
  key.append(element("i"), `up to ${kmMax.toFixed(1)} km`, element("i", "line"), `greatest speed, up to ${Math.round(kmhMax)} km/h`);
  box.append(svg, axis, key);
  return box;
}
