// The outlines that are shipped: countries, lakes, rivers and places, as paths in the square from 0 to 1.
import { worldX, worldY } from "./mercator.js";

export async function loadWorld() {
  const answer = await fetch("static/world.json");
  if (!answer.ok) throw new Error(`the outlines of the map: status ${answer.status}`);
  const { countries, waters, places } = await answer.json();
  return { countries: shapesOf(countries), ...watersOf(waters), places: placesOf(places) };
}

// Arcs of a topology are shared by neighbours; a ring is a chain of them, ~n is arc n backwards.
function shapesOf({ transform, arcs, shapes }) {
  const points = arcs.map((arc) => {
    let x = 0;
    let y = 0;
    return arc.map(([dx, dy]) => {
      x += dx;
      y += dy;
      return [worldX(x * transform.scale[0] + transform.translate[0]), worldY(y * transform.scale[1] + transform.translate[1])];
    });
  });
  const found = [];
  for (const polygons of shapes) {
    for (const rings of polygons) {
      const shape = new Shape();
      for (const ring of rings) {
        const line = [];
        for (const number of ring) {
          const piece = number >= 0 ? points[number] : points[~number].slice().reverse();
          for (let i = line.length ? 1 : 0; i < piece.length; i += 1) line.push(piece[i]);
        }
        shape.add(line, true);
      }
      found.push(shape);
    }
  }
  return found;
}

function watersOf({ perDegree, lakes, rivers }) {
  const lines = (all, closed) =>
    all.map((steps) => {
      let x = 0;
      let y = 0;
      const line = [];
      for (let i = 0; i < steps.length; i += 2) {
        x += steps[i];
        y += steps[i + 1];
        line.push([worldX(x / perDegree), worldY(y / perDegree)]);
      }
      return new Shape().add(line, closed);
    });
  return { lakes: lines(lakes, true), rivers: lines(rivers, false) };
}

function placesOf(places) {
  return places.map(([name, latitude, longitude, thousands]) => ({ name, x: worldX(longitude), y: worldY(latitude), latitude, longitude, thousands }));
}

class Shape {
  constructor() {
    this.path = new Path2D();
    this.left = this.top = Infinity;
    this.right = this.bottom = -Infinity;
  }

  add(line, closed) {
    line.forEach(([x, y], at) => {
      if (at === 0) this.path.moveTo(x, y);
      else this.path.lineTo(x, y);
      this.left = Math.min(this.left, x);
      this.right = Math.max(this.right, x);
      this.top = Math.min(this.top, y);
      this.bottom = Math.max(this.bottom, y);
    });
    if (closed) this.path.closePath();
    return this;
  }
}

// The largest place near a point, in words: "near Ulm".
export function nearest(world, latitude, longitude) {
  const stretch = Math.cos((latitude * Math.PI) / 180);
  let best = null;
  let least = Infinity;
  for (const place of world?.places ?? []) {
    const distance = Math.hypot(place.latitude - latitude, (place.longitude - longitude) * stretch);
    if (distance < least) [best, least] = [place, distance];
  }
  const km = least * 111.2;
  if (best === null || km > 300) return "";
  return km < 8 ? `in ${best.name}` : `${Math.round(km)} km from ${best.name}`;
}
