// The viewer of one case: a slide to pan and zoom, a map over it, sentences beside it, linked both ways. Where tiles and
// weights come from is the business of `source.get(path) -> {answer, drop}`; what is chosen lives in `state`
// (get, set, on), which the widget shares with Python.

const SELECTED_OUTLINES = 400;
const TOP_TILES = 6;

/** What cannot be loaded has been said on the slide by `load`; it is no error of the page besides. */
const told = (showing) => showing.catch(() => {});

class CaseViewer {
  constructor(root, scene, source, state) {
    Object.assign(this, { root, scene, source, state });
    this.loaded = new Map();
    this.painted = document.createElement("canvas");
    this.build();
    this.viewer = this.openSeadragon();
    this.queue = new TileQueue(source, (tile) => tileIsWanted(this.viewer, this.slide, tile));
    this.stops = [
      ...["row", "method", "scale"].map((name) => state.on(name, () => told(this.showMap()))),
      ...["threshold", "colours"].map((name) => state.on(name, () => this.paint())),
      state.on("opacity", () => this.showSettings()),
      state.on("slide", () => told(this.showSlide())),
      state.on("selected", () => told(this.showSelection())),
    ];
    told(this.showSlide());
    told(this.showMap());
  }

  get slide() { return this.scene.slides[this.state.get("slide")]; }
  get hasMaps() { return this.scene.methods.length > 0; }

  build() {
    const { scene, state } = this;
    this.tabs = tabsOf(scene, (number) => state.set("slide", number));
    this.stage = make("div", { className: "wm-osd" });
    this.heat = make("canvas", { className: "wm-layer wm-heat" });
    this.marks = make("canvas", { className: "wm-layer" });
    this.scale = make("div", { className: "wm-scale" });
    this.remark = make("div", { className: "wm-note", attributes: { role: "status" } });
    this.frame = make("div", { className: "wm-frame" });
    this.selecting = make("button", { type: "button", className: "wm-tool", title: "Drag a rectangle to choose tiles (or hold Shift)",
      onclick: () => this.setSelecting(!this.isSelecting), attributes: { "aria-pressed": "false" } }, "Select");
    const tool = (text, title, act) => make("button", { type: "button", className: "wm-tool", title, onclick: act, attributes: { "aria-label": title } }, text);
    const tools = make("div", { className: "wm-tools" },
      tool("+", "Zoom in", () => this.viewer.viewport.zoomBy(2).applyConstraints()),
      tool("−", "Zoom out", () => this.viewer.viewport.zoomBy(0.5).applyConstraints()),
      tool("⤢", "Whole slide", () => this.viewer.viewport.goHome()), scene.n_tiles ? this.selecting : null);
    const well = make("div", { className: "wm-well" }, this.stage, this.scale, tools, this.remark);
    this.rows = scene.rows.map((row, number) => (this.hasMaps ? rowButton(row, number, () => this.chooseRow(number)) : make("p", { className: "wm-row wm-words" }, row.text)));
    this.settings = this.hasMaps ? mapSettings(scene, (name, value) => state.set(name, value)) : null;
    this.top = make("div", { className: "wm-top" });
    this.chosen = make("div", { className: "wm-chosen", attributes: { "aria-live": "polite" } });
    const text = !scene.rows.some((row) => row.is_sentence) && scene.text;
    const side = make("div", { className: "wm-side" },
      scene.disclaimer ? make("p", { className: "wm-disclaimer" }, scene.disclaimer) : null,
      ...scene.warnings.map((warning) => make("p", { className: "wm-warning" }, warning)),
      text ? make("p", { className: "wm-text" }, text) : null,
      this.rows.length ? make("div", { className: "wm-rows", attributes: { role: "group", "aria-label": "Sentences" } }, ...this.rows) : null,
      this.settings, this.hasMaps ? this.top : null, scene.n_tiles ? this.chosen : null);
    this.root.classList.add("wm-root");
    // Jupyter would take keys that are pressed here for its own commands ("d d" deletes the cell). It looks at the focused
    // element before its parents, so that each must say it.
    this.root.addEventListener("focusin", ({ target }) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
    this.root.append(make("div", { className: "wm-main" }, this.tabs, well), side.childElementCount ? side : "");
  }

  openSeadragon() {
    const viewer = new OpenSeadragon.Viewer({
      element: this.stage, drawer: "canvas", showNavigationControl: false, showNavigator: true, navigatorPosition: "TOP_RIGHT",
      navigatorSizeRatio: 0.16, navigatorAutoFade: false, animationTime: 0.5, blendTime: 0.1, visibilityRatio: 0.5, minZoomImageRatio: 0.6,
      maxZoomPixelRatio: 4, imageLoaderLimit: 0, timeout: 120000, tabIndex: 0,
      gestureSettingsMouse: { clickToZoom: false }, gestureSettingsTouch: { clickToZoom: false, pinchRotate: false },
    });
    viewer.canvas.append(this.heat, this.marks, this.frame); // below the overview and above the slide
    allowSecondTry(OpenSeadragon, viewer);
    viewer.addHandler("update-viewport", () => this.draw());
    viewer.addHandler("animation", () => this.queue.prune());
    viewer.addHandler("canvas-key", (event) => { if (/^[rf]$/i.test(event.originalEvent.key)) event.preventDefaultAction = true; });
    viewer.addHandler("canvas-click", (event) => { if (event.quick) this.click(event); });
    viewer.addHandler("canvas-press", (event) => this.startFrame(event));
    viewer.addHandler("canvas-drag", (event) => this.dragFrame(event));
    viewer.addHandler("canvas-release", (event) => told(this.endFrame(event)));
    viewer.addHandler("tile-load-failed", ({ message }) => { if (message !== STALE) this.say(`A part of the slide cannot be shown: ${message}`); });
    return viewer;
  }

  say(words) { this.remark.textContent = words; }

  /** What `path` answers, as a typed array of `Kind`; asked for once. */
  load(path, Kind) {
    if (!this.loaded.has(path)) {
      const asked = this.source.get(path).answer.then((bytes) => new Kind(bytes));
      asked.catch((problem) => { this.loaded.delete(path); this.say(String(problem.message || problem)); });
      this.loaded.set(path, asked);
    }
    return this.loaded.get(path);
  }

  async showSlide() {
    const number = this.state.get("slide");
    this.tabs?.show(number);
    this.say(this.slide.remark);
    this.cells = null;
    if (this.opened !== number) {
      this.opened = number;
      this.queue.empty();
      this.viewer.open(tileSource(OpenSeadragon, this.slide, number, this.queue));
    }
    const cells = this.scene.n_tiles ? await this.load(`cells/${number}`, Int32Array) : new Int32Array();
    if (number !== this.state.get("slide") || this.gone) return;
    this.cells = cells;
    this.paint();
  }

  async showMap() {
    if (!this.hasMaps) return;
    const [method, row, scale] = ["method", "row", "scale"].map((name) => this.state.get(name));
    this.rows.forEach((button, number) => {
      button.setAttribute("aria-pressed", String(number === row));
      button.warn(method);
    });
    const weights = await this.load(`weights/${method}/${row}`, Float32Array);
    if (method !== this.state.get("method") || row !== this.state.get("row") || scale !== this.state.get("scale") || this.gone) return;
    const { values, low, high } = scale === "rank" ? { values: ranked(weights) } : straight(weights);
    Object.assign(this, { shownRow: row, shownMethod: method });
    this.values = this.scene.top_tiles_only ? values.map((value, tile) => (weights[tile] > 0 ? value : -1)) : values;
    this.ends = scale === "raw" ? [low, high] : null;
    this.topTiles = highest(weights, TOP_TILES);
    this.top.replaceChildren("Top tiles ", ...this.topTiles.map((tile, at) =>
      make("button", { type: "button", className: "wm-goto", title: `Go to tile ${tile}`, onclick: () => this.goTo(tile) }, String(at + 1))));
    this.paint();
    await this.showSelection();
  }

  paint() {
    this.showSettings();
    if (this.values && this.cells) {
      paintCells(this.painted, this.cells, this.slide.cells.shape, this.values, this.state.get("threshold"), this.colours());
    }
    this.draw();
  }

  colours() { return colourTable(COLOURS[this.state.get("colours")]); }

  showSettings() {
    this.heat.style.opacity = this.state.get("opacity");
    const names = ["opacity", "threshold", "scale", "colours", "method"];
    this.settings?.show(Object.fromEntries(names.map((name) => [name, this.state.get(name)])), this.ends);
  }

  draw() {
    if (this.gone || !this.viewer.viewport) return;
    const part = shownPart(this.viewer, this.slide);
    for (const canvas of [this.heat, this.marks]) {
      const [width, height] = [part.size.x, part.size.y].map((side) => Math.max(1, Math.round(side * window.devicePixelRatio)));
      if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
      else canvas.getContext("2d").clearRect(0, 0, width, height);
    }
    if (this.cells && this.values) drawCells(this.heat.getContext("2d"), this.painted, this.slide.cells, part);
    if (this.places) this.drawMarks(part);
    const bar = scaleBar(this.slide.mpp, part.perPx * this.slide.mpp, part.size.x);
    this.scale.hidden = !bar;
    if (bar) Object.assign(this.scale, { textContent: bar.label }).style.width = `${bar.px}px`;
  }

  drawMarks(part) {
    const { first_tile: first, n_tiles: count, tile_size_l0: side } = this.slide;
    const isHere = (tile) => tile >= first && tile < first + count;
    const context = this.marks.getContext("2d");
    const ratio = this.marks.width / part.size.x;
    const outline = (tiles, colour, width) => {
      context.beginPath();
      for (const tile of tiles) {
        const [x, y] = [(this.places[2 * tile] - part.x) / part.perPx, (this.places[2 * tile + 1] - part.y) / part.perPx];
        const size = Math.max(side / part.perPx, 5);
        context.rect(x * ratio, y * ratio, size * ratio, size * ratio);
      }
      Object.assign(context, { strokeStyle: colour, lineWidth: width * ratio }).stroke();
    };
    const top = (this.topTiles || []).filter(isHere);
    const chosen = this.state.get("selected").filter(isHere);
    outline(top, "#10202b", 3.5);
    outline(top, "#fff", 1.5);
    if (chosen.length <= SELECTED_OUTLINES) {
      outline(chosen, "#10202b", 5);
      outline(chosen, "#ffb000", 2.5);
    } else if (this.box && this.box.slide === this.state.get("slide")) {
      const [x, y, w, h] = [this.box.x - part.x, this.box.y - part.y, this.box.w, this.box.h].map((length) => (length / part.perPx) * ratio);
      Object.assign(context, { strokeStyle: "#ffb000", lineWidth: 2.5 * ratio }).strokeRect(x, y, w, h);
    }
  }

  chooseRow(number) { this.state.set("row", number); }

  goTo(tile) {
    const number = this.scene.slides.findIndex((one) => tile >= one.first_tile && tile < one.first_tile + one.n_tiles);
    const move = () => {
      const { width, tile_size_l0: side } = this.slide;
      const [x, y] = [this.places[2 * tile], this.places[2 * tile + 1]];
      this.viewer.viewport.fitBounds(new OpenSeadragon.Rect((x - side) / width, (y - side) / width, (3 * side) / width, (3 * side) / width));
    };
    this.select([tile]);
    if (number === this.state.get("slide")) return told(this.loadPlaces().then(move));
    this.viewer.addOnceHandler("open", () => told(this.loadPlaces().then(move)));
    return this.state.set("slide", number);
  }

  pointAt(position) {
    const part = shownPart(this.viewer, this.slide);
    return [part.x + position.x * part.perPx, part.y + position.y * part.perPx];
  }

  click(event) {
    if (!this.cells) return;
    const tile = tileAt(this.cells, this.slide.cells, ...this.pointAt(event.position));
    const before = this.state.get("selected");
    const adds = event.originalEvent.ctrlKey || event.originalEvent.metaKey;
    if (tile < 0) return adds ? undefined : this.select([]);
    if (!adds) return this.select([tile]);
    return this.select(before.includes(tile) ? before.filter((one) => one !== tile) : [...before, tile]);
  }

  select(tiles) { this.box = null; this.state.set("selected", tiles); }

  setSelecting(on) {
    this.isSelecting = on;
    this.selecting.setAttribute("aria-pressed", String(on));
    this.root.classList.toggle("wm-selecting", on);
  }

  startFrame(event) {
    if (this.scene.n_tiles && (this.isSelecting || event.originalEvent.shiftKey)) this.start = event.position;
  }

  dragFrame(event) {
    if (!this.start) return;
    event.preventDefaultAction = true;
    const [x, y] = [Math.min(this.start.x, event.position.x), Math.min(this.start.y, event.position.y)];
    const [w, h] = [Math.abs(this.start.x - event.position.x), Math.abs(this.start.y - event.position.y)];
    this.frame.style.cssText = `display:block;left:${x}px;top:${y}px;width:${w}px;height:${h}px`;
  }

  async endFrame(event) {
    const start = this.start;
    this.start = null;
    this.frame.style.display = "none";
    if (!start || Math.hypot(start.x - event.position.x, start.y - event.position.y) < 5) return;
    const corners = [this.pointAt(start), this.pointAt(event.position)];
    const slide = this.state.get("slide");
    const places = await this.loadPlaces();
    const [left, right] = corners.map((corner) => corner[0]).sort((a, b) => a - b);
    const [top, bottom] = corners.map((corner) => corner[1]).sort((a, b) => a - b);
    const { first_tile: first, n_tiles: count, tile_size_l0: side } = this.scene.slides[slide];
    const inside = [];
    for (let tile = first; tile < first + count; tile++) {
      const [x, y] = [places[2 * tile] + side / 2, places[2 * tile + 1] + side / 2];
      if (x >= left && x <= right && y >= top && y <= bottom) inside.push(tile);
    }
    this.box = { slide, x: left, y: top, w: right - left, h: bottom - top };
    this.state.set("selected", inside);
  }

  async loadPlaces() {
    this.places = await this.load("coords", Int32Array);
    return this.places;
  }

  /** Mark the chosen tiles on the slide, and the sentences that they support beside it. */
  async showSelection() {
    if (!this.scene.n_tiles) return;
    const tiles = this.state.get("selected");
    const turn = (this.turn = (this.turn || 0) + 1);
    const places = await this.loadPlaces();
    this.chosen.textContent = tiles.length === 1
      ? `Tile ${tiles[0]} at ${places[2 * tiles[0]]}, ${places[2 * tiles[0] + 1]} px`
      : tiles.length ? `${tiles.length} tiles chosen` : "Click a tile, or drag with Shift, to choose tiles.";
    const support = this.hasMaps && tiles.length ? await this.load(`support/${this.state.get("method")}`, Uint8Array) : null;
    if (this.gone || turn !== this.turn) return;
    const stride = Math.ceil(this.scene.n_tiles / 8);
    if (this.hasMaps) this.rows.forEach((button, row) => {
      const count = support ? tiles.filter((tile) => (support[row * stride + (tile >> 3)] >> (tile & 7)) & 1).length : 0;
      button.mark(!count ? "" : tiles.length === 1 ? "supported by this tile" : `supported by ${count} of ${tiles.length} tiles`);
    });
    this.draw();
  }

  close() {
    this.gone = true;
    this.stops.forEach((stop) => stop());
    this.viewer.destroy();
    this.root.replaceChildren();
  }
}
