// One slide of the page: deep zoom where it can be read, and over it the map, the outline and the numbered tiles.
// The still picture in the page is never touched: it is what prints.
"use strict";
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// tiles: of the whole page; onTile(index): a tile on the slide was clicked.
function makeSlide(figure, panel, tiles, onTile) {
  const still = figure.querySelector(".still");
  const live = document.createElement("div");
  const layers = still.querySelector(".layers").cloneNode(true);
  const heat = layers.querySelector(".heat");
  const boxes = layers.querySelector(".boxes");
  const whole = heat.getAttribute("href");
  let wanted = null;
  let indices = [];
  still.after(live);
  const zoom = panel.zoomable ? deepZoom() : flat();

  function flat() {
    live.className = "live flat";
    live.style.cssText = still.style.cssText;
    live.append(layers);
    layers.style.setProperty("--px", panel.width / Math.max(1, live.clientWidth));
    layers.addEventListener("click", (event) => {
      const box = event.target.closest("[data-tile]");
      if (box) onTile(Number(box.dataset.tile));
    });
    figure.querySelector(".zoom").remove();
    return null;
  }

  function deepZoom() {
    live.className = "live zoomable";
    const side = tiles.find((tile) => tile.slide === panel.slide)?.side ?? Infinity;
    const picturePx = panel.picturePx ? side / panel.picturePx : Infinity;
    const viewer = OpenSeadragon({
      element: live,
      drawer: "canvas",
      tileSources: source(),
      showNavigationControl: false,
      visibilityRatio: 0.5,
      minZoomImageRatio: 0.8,
      maxZoomPixelRatio: panel.finest / Math.min(panel.finest / 2, picturePx / 2),
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.5,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsPen: { clickToZoom: false, dblClickToZoom: true },
    });
    viewer.canvas.setAttribute("role", "application");
    viewer.canvas.setAttribute("aria-label", `Slide ${panel.slide}: arrow keys move, plus and minus zoom, zero shows it whole`);
    layers.setAttribute("aria-hidden", "true");
    layers.prepend(pictures());
    viewer.canvas.append(layers);
    const scale = document.createElement("div");
    scale.className = "scale";
    if (panel.mpp) viewer.canvas.append(scale);
    const follow = () => {
      const box = viewer.viewport.getBounds(true);
      const perPx = (box.width * panel.width) / viewer.viewport.getContainerSize().x;
      layers.setAttribute("viewBox", [box.x, box.y, box.width, box.height].map((part) => part * panel.width).join(" "));
      layers.style.setProperty("--px", perPx);
      layers.classList.toggle("near", perPx < panel.finest);
      layers.classList.toggle("close", side < Infinity && side / perPx > 180);
      if (panel.mpp) drawScale(scale, perPx * panel.mpp);
      live.dataset.perPx = perPx;
    };
    viewer.addHandler("update-viewport", follow);
    viewer.addHandler("canvas-key", (event) => {
      // Turning and flipping would part the picture from what lies over it.
      if ("rRfF".includes(event.originalEvent.key)) event.preventDefaultAction = true;
    });
    viewer.addHandler("canvas-click", (event) => {
      const hit = event.quick ? tileAt(viewer.viewport.pointFromPixel(event.position)) : undefined;
      if (hit !== undefined) onTile(hit);
    });
    viewer.canvas.addEventListener("pointermove", (event) => {
      const corner = viewer.canvas.getBoundingClientRect();
      const place = new OpenSeadragon.Point(event.clientX - corner.left, event.clientY - corner.top);
      viewer.canvas.classList.toggle("over-tile", tileAt(viewer.viewport.pointFromPixel(place)) !== undefined);
    });
    const buttons = { in: () => viewer.viewport.zoomBy(2), out: () => viewer.viewport.zoomBy(0.5), whole: () => viewer.viewport.goHome() };
    for (const [name, act] of Object.entries(buttons)) {
      figure.querySelector(`[data-do=${name}]`).addEventListener("click", () => { act(); viewer.viewport.applyConstraints(); });
    }
    return viewer;
  }

  function source() {
    const last = panel.levels.length;
    return {
      width: panel.width / panel.finest,
      height: panel.height / panel.finest,
      minLevel: 0,
      maxLevel: last,
      // The first level is the page's own overview, in one tile; one px more, so that rounding never makes it two.
      getTileWidth: (level) => (level ? panel.tilePx : Math.ceil(panel.width / panel.finest) + 1),
      getTileHeight: (level) => (level ? panel.tilePx : Math.ceil(panel.height / panel.finest) + 1),
      tileExists: (level, x, y) => !level || `${x}_${y}` in panel.levels[level - 1],
      getTileHashKey: (level, x, y) => `${panel.slide}/${level}/${x}_${y}`,
      getTileUrl: (level, x, y) =>
        level ? `data:image/jpeg;base64,${panel.levels[level - 1][`${x}_${y}`]}` : still.querySelector(".ground").src,
    };
  }

  // The tiles' own pictures at their places: near by they are sharper than the zoom's last level.
  function pictures() {
    const group = svg("g", { class: "pictures" });
    tiles.forEach((tile, index) => {
      if (tile.slide !== panel.slide || !document.getElementById(`picture-${index}`)) return;
      group.append(svg("use", { href: `#picture-${index}`, transform: `translate(${tile.x} ${tile.y}) scale(${tile.side})` }));
    });
    return group;
  }

  function tileAt(point) {
    const [x, y] = [point.x * panel.width, point.y * panel.width];
    return indices.find((index) => {
      const tile = tiles[index];
      return x >= tile.x && x < tile.x + tile.side && y >= tile.y && y < tile.y + tile.side;
    });
  }

  function drawBoxes(shown) {
    const ranked = shown.map((index, place) => [index, place + 1]).filter(([index]) => tiles[index].slide === panel.slide);
    indices = ranked.map(([index]) => index);
    boxes.replaceChildren();
    for (const [index] of ranked) {
      const { x, y, side } = tiles[index];
      const group = svg("g", { "data-tile": index });
      for (const kind of ["halo", "box"]) group.append(svg("rect", { class: kind, x, y, width: side, height: side }));
      boxes.append(group);
    }
    for (const [index, rank] of ranked) {
      const { x, y, side } = tiles[index];
      boxes.append(svg("text", { x: x + side / 2, y: y + side / 2, style: `--side: ${side}` }, rank));
    }
  }

  return {
    slide: panel.slide,
    zooms: zoom !== null,
    // key: "report" or "sentence-N"; shown: indices of its tiles, most important first. Resolves to whether it has a map.
    async show(key, shown) {
      const uri = key === "report" ? whole : panel.maps[key] ?? null;
      wanted = key;
      drawBoxes(shown);
      if (!uri) {
        heat.removeAttribute("href");
      } else if (heat.getAttribute("href") !== uri) {
        // Decoded before it is put in, so that the old map stays until the new one is there.
        const image = new Image();
        image.src = uri;
        await image.decode();
        if (wanted === key) heat.setAttribute("href", uri);
      }
      if (wanted === key) live.dataset.key = key;
    },
    light(index, on) {
      boxes.querySelector(`[data-tile="${index}"]`)?.classList.toggle("lit", on);
    },
    layer(name, value) {
      if (name === "heat") heat.setAttribute("opacity", value);
      else layers.querySelector(`.${name}`).style.visibility = value ? "" : "hidden";
    },
    find(index) {
      const { x, y, side } = tiles[index];
      const part = [x - side, y - side, side * 3, side * 3].map((value) => value / panel.width);
      zoom.viewport.fitBounds(new OpenSeadragon.Rect(...part));
      zoom.canvas.focus();
    },
  };
}

// A round length (1, 2 or 5 times a power of ten) of at most 120 px.
function drawScale(element, umPerPx) {
  const limit = 120 * umPerPx;
  const power = 10 ** Math.floor(Math.log10(limit));
  const length = [5, 2, 1].find((step) => step * power <= limit) * power;
  element.style.width = `${length / umPerPx}px`;
  element.textContent = length >= 1000 ? `${length / 1000}\u202fmm` : `${Number(length.toPrecision(1))}\u202fµm`;
}
