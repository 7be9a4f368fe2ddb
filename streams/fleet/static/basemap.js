// Draws what is below the vehicles: tiles or outlines, and names of places. Only when the camera or the theme changes.
const LABEL_BOX = 15;
const LABELS_MAX = 70;
// Places of so many thousand people are named from this zoom on.
const PEOPLE_BY_ZOOM = [[3.2, 8000], [4.4, 3000], [5.4, 1000], [6.2, 450], [7, 230], [8, 140], [9, 100]];

export function drawBasemap(context, camera, ratio, world, tiles, colours) {
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.fillStyle = tiles ? colours.land : colours.water;
  context.fillRect(0, 0, camera.width, camera.height);
  if (tiles) tiles.draw(context, camera);
  if (world === null) return;
  if (!tiles) outlines(context, camera, ratio, world, colours);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (!tiles) labels(context, camera, world, colours);
}

function outlines(context, camera, ratio, world, colours) {
  const { scale } = camera;
  const left = camera.worldX(0);
  const right = camera.worldX(camera.width);
  const top = camera.worldY(0);
  const bottom = camera.worldY(camera.height);
  // The world is drawn again to the left and right, so that it has no edge.
  for (let turn = Math.floor(left); turn <= Math.floor(right); turn += 1) {
    context.setTransform(scale * ratio, 0, 0, scale * ratio, camera.screenX(turn) * ratio, camera.screenY(0) * ratio);
    const seen = (one) => one.right + turn >= left && one.left + turn <= right && one.bottom >= top && one.top <= bottom;
    context.lineJoin = "round";
    context.fillStyle = colours.land;
    context.strokeStyle = colours.border;
    context.lineWidth = 1 / scale;
    const countries = world.countries.filter(seen);
    for (const one of countries) context.fill(one.path, "evenodd");
    if (camera.zoom > 4) {
      context.strokeStyle = colours.river;
      context.lineWidth = (camera.zoom > 7 ? 1.8 : 1) / scale;
      for (const one of world.rivers) if (seen(one)) context.stroke(one.path);
    }
    context.strokeStyle = colours.border;
    context.lineWidth = (camera.zoom > 5 ? 1.3 : 0.8) / scale;
    for (const one of countries) context.stroke(one.path);
    context.fillStyle = colours.water;
    for (const one of world.lakes) if (seen(one)) context.fill(one.path);
  }
}

function labels(context, camera, world, colours) {
  const least = PEOPLE_BY_ZOOM.findLast(([zoom]) => camera.zoom >= zoom)?.[1];
  if (least === undefined) return;
  const taken = [];
  context.textBaseline = "middle";
  context.lineJoin = "round";
  let shown = 0;
  for (const place of world.places) {
    if (place.thousands < least || shown >= LABELS_MAX) break;
    const x = camera.screenX(place.x);
    const y = camera.screenY(place.y);
    if (x < -40 || y < 0 || x > camera.width || y > camera.height) continue;
    const size = place.thousands > 1000 ? 13 : 11.5;
    context.font = `${place.thousands > 1000 ? 600 : 500} ${size}px system-ui, sans-serif`;
    const width = context.measureText(place.name).width + 10;
    if (taken.some((box) => x < box[2] && x + width > box[0] && y - LABEL_BOX < box[3] && y + LABEL_BOX > box[1])) continue;
    taken.push([x, y - LABEL_BOX, x + width, y + LABEL_BOX]);
    shown += 1;
    context.fillStyle = colours.place;
    context.beginPath();
    context.arc(x, y, 2.2, 0, 2 * Math.PI);
    context.fill();
    context.strokeStyle = colours.halo;
    context.lineWidth = 3;
    context.strokeText(place.name, x + 6, y);
    context.fillText(place.name, x + 6, y);
  }
}
