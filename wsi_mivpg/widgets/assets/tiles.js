// Slide tiles for OpenSeadragon from any `source.get(path)`: no URL is fetched here. Few requests are under way at once,
// and those that nobody looks at any more are taken back.

const AT_ONCE = 6;
const STALE = "no longer in view";

class TileQueue {
  constructor(source, isWanted) {
    this.source = source;
    this.isWanted = isWanted;
    this.waiting = [];
    this.running = new Map();
    this.asked = 0;
    this.dropped = 0;
  }

  add(job, path) {
    this.waiting.push({ job, path });
    queueMicrotask(() => this.next());
  }

  next() {
    while (this.running.size < AT_ONCE && this.waiting.length) {
      const { job, path } = this.waiting.shift();
      if (this.isWanted(job.tile)) this.start(job, path);
      else this.giveUp(job);
    }
  }

  async start(job, path) {
    const request = this.source.get(path);
    this.running.set(job, request);
    this.asked += 1;
    try {
      const bytes = await request.answer;
      const picture = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
      if (this.running.has(job)) job.finish(picture, null, "imageBitmap");
    } catch (problem) {
      if (this.running.has(job)) job.fail(String(problem.message || problem), null);
    }
    this.running.delete(job);
    this.next();
  }

  /** Take back what is out of view. */
  prune() {
    for (const job of [...this.running.keys()]) {
      if (this.isWanted(job.tile)) continue;
      this.running.get(job).drop();
      this.running.delete(job);
      this.giveUp(job);
    }
    this.next();
  }

  /** Take back everything, before another slide is opened: OpenSeadragon warns of tiles that come for one that is closed. */
  empty() {
    const jobs = [...this.running.keys(), ...this.waiting.map((one) => one.job)];
    this.running.forEach((request) => request.drop());
    this.running.clear();
    this.waiting = [];
    jobs.forEach((job) => this.giveUp(job));
  }

  giveUp(job) {
    this.dropped += 1;
    job.fail(STALE, null);
  }

  abort(job) {
    this.waiting = this.waiting.filter((one) => one.job !== job);
    this.running.get(job)?.drop();
    this.running.delete(job);
  }
}

/** One slide for OpenSeadragon; the finest level is the slide itself. */
function tileSource(OpenSeadragon, slide, number, queue) {
  const source = new OpenSeadragon.TileSource({
    width: slide.width, height: slide.height, tileSize: slide.tile_px, tileOverlap: 0, minLevel: 0, maxLevel: slide.last_level,
  });
  source.getTileUrl = (level, x, y) => `tile/${number}/${level}/${x}/${y}`;
  source.hasTransparency = () => false;
  source.downloadTileStart = (job) => queue.add(job, job.src);
  source.downloadTileAbort = (job) => queue.abort(job);
  if (!slide.has_pixels) source.tileExists = () => false;
  return source;
}

/** Whether a tile is in view, or nearly, and not much finer than what the screen can show. */
function tileIsWanted(viewer, slide, tile) {
  // The coarsest is also what the small overview shows.
  if (tile.level === 0 || !viewer.viewport) return true;
  const part = shownPart(viewer, slide);
  if (!part.size.x) return true; // the page has not been laid out yet
  const scale = 2 ** (slide.last_level - tile.level);
  const side = slide.tile_px * scale;
  const margin = part.perPx * Math.max(part.size.x, part.size.y) * 0.25;
  const [x, y] = [tile.x * side, tile.y * side];
  const isNear =
    x < part.x + part.perPx * part.size.x + margin && x + side > part.x - margin &&
    y < part.y + part.perPx * part.size.y + margin && y + side > part.y - margin;
  return isNear && scale * 4 * window.devicePixelRatio > part.perPx;
}

/** A slide tile that was given up may be asked for again, and is no error; one that cannot be read may not. */
function allowSecondTry(OpenSeadragon, viewer) {
  const { console } = window;
  const error = (...words) => { if (!words.includes(STALE)) console.error(...words); };
  OpenSeadragon.console = { ...Object.fromEntries(["log", "debug", "info", "warn", "assert"].map((name) => [name, console[name].bind(console)])), error };
  viewer.addHandler("tile-load-failed", ({ tile, message }) => {
    if (message !== STALE) return;
    queueMicrotask(() => { tile.exists = true; });
  });
}
