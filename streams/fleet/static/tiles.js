// Tiles of a map of one's own (STREAMS_FLEET_TILES_URL): fetched when they are seen, so many kept.
const KEPT_MAX = 300;
const UNDER_WAY_MAX = 12;
const SIZE = 256;

export class Tiles {
  constructor(url, onLoad) {
    this.url = url;
    this.onLoad = onLoad;
    this.kept = new Map();
    this.underWay = 0;
  }

  draw(context, camera) {
    const zoom = Math.max(0, Math.min(19, Math.round(camera.zoom)));
    const size = SIZE * 2 ** (camera.zoom - zoom);
    const across = 2 ** zoom;
    const first = [Math.floor(camera.worldX(0) * across), Math.floor(camera.worldY(0) * across)];
    const last = [Math.floor(camera.worldX(camera.width) * across), Math.floor(camera.worldY(camera.height) * across)];
    for (let row = Math.max(0, first[1]); row <= Math.min(across - 1, last[1]); row += 1) {
      for (let column = first[0]; column <= last[0]; column += 1) {
        const image = this.#image(zoom, ((column % across) + across) % across, row);
        if (image !== null) context.drawImage(image, camera.screenX(column / across), camera.screenY(row / across), size + 0.5, size + 0.5);
      }
    }
  }

  #image(z, x, y) {
    const key = `${z}/${x}/${y}`;
    const known = this.kept.get(key);
    if (known) {
      this.kept.delete(key);
      this.kept.set(key, known);
      return known.complete && known.naturalWidth ? known : null;
    }
    if (this.underWay >= UNDER_WAY_MAX) return null;
    const image = new Image();
    const over = () => {
      this.underWay -= 1;
      this.onLoad();
    };
    image.addEventListener("load", over);
    image.addEventListener("error", over);
    image.src = this.url.replace("{z}", z).replace("{x}", x).replace("{y}", y);
    this.underWay += 1;
    this.kept.set(key, image);
    if (this.kept.size > KEPT_MAX) this.kept.delete(this.kept.keys().next().value);
    return null;
  }
}
