// Weights to colours, and colours to the screen. A map is painted once, one canvas pixel for each cell of the tile grid;
// while panning the browser only scales that small picture, so that its cost does not grow with the number of tiles. `COLOURS`
// (name -> stops) is put before this file by `bundle.py`.


/** 256 colours, Uint8 RGBA, linear between the stops. */
function colourTable(stops) {
  const rgb = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const table = new Uint8ClampedArray(256 * 4);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (rgb.length - 1);
    const low = Math.min(Math.floor(place), rgb.length - 2);
    const [one, two] = [rgb[low], rgb[low + 1]];
    for (let c = 0; c < 3; c++) table[4 * i + c] = Math.round(one[c] + (two[c] - one[c]) * (place - low));
    table[4 * i + 3] = 255;
  }
  return table;
}

/** Mean ranks in 0..1 of all weights; equal weights share one. */
function ranked(weights) {
  const order = Float32Array.from(weights).sort();
  const n = order.length;
  const rank = new Map();
  for (let i = 0; i < n; ) {
    let j = i;
    while (j < n && order[j] === order[i]) j++;
    rank.set(order[i], n > 1 && j - i < n ? (i + j - 1) / 2 / (n - 1) : 0.5);
    i = j;
  }
  return Float32Array.from(weights, (weight) => rank.get(weight));
}

/** Weights on a straight scale from the lesser of 0 and the least to the greatest: {values in 0..1, low, high}. */
function straight(weights) {
  let low = 0;
  let high = -Infinity;
  for (const weight of weights) {
    if (weight < low) low = weight;
    if (weight > high) high = weight;
  }
  const span = high - low || 1;
  return { values: Float32Array.from(weights, (weight) => (weight - low) / span), low, high };
}

/** The numbers of the `count` greatest weights above zero, greatest first. */
function highest(weights, count) {
  const best = [];
  weights.forEach((weight, tile) => {
    if (weight <= 0 || (best.length === count && weight <= weights[best[count - 1]])) return;
    const at = best.findIndex((other) => weights[other] < weight);
    best.splice(at < 0 ? best.length : at, 0, tile);
    best.length = Math.min(best.length, count);
  });
  return best;
}

/** Paint a slide's cells: `cells` holds tile numbers or -1, `values` a 0..1 for each tile of the case. */
function paintCells(canvas, cells, [rows, columns], values, threshold, table) {
  canvas.width = Math.max(columns, 1);
  canvas.height = Math.max(rows, 1);
  if (!cells.length) return;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  const pixels = new Uint32Array(picture.data.buffer);
  const colours = new Uint32Array(table.buffer);
  for (let i = 0; i < cells.length; i++) {
    if (cells[i] < 0) continue;
    const value = values[cells[i]];
    if (value >= threshold) pixels[i] = colours[Math.round(value * 255)];
  }
  context.putImageData(picture, 0, 0);
}

/** The part of a slide, in its level-0 px, that a viewer of `width` x `height` CSS px shows now. */
function shownPart(viewer, slide) {
  const bounds = viewer.viewport.getBounds(true);
  const size = viewer.viewport.getContainerSize();
  return { x: bounds.x * slide.width, y: bounds.y * slide.width, perPx: (bounds.width * slide.width) / size.x, size };
}

/** Draw the painted cells where they lie; only the cells in view are handed to the browser. */
function drawCells(context, canvas, grid, part) {
  const [cellWidth, cellHeight] = grid.size;
  const { width, height } = context.canvas;
  const scale = width / part.size.x / part.perPx;
  const first = [(part.x - grid.origin[0]) / cellWidth, (part.y - grid.origin[1]) / cellHeight];
  const left = Math.max(0, Math.floor(first[0]));
  const top = Math.max(0, Math.floor(first[1]));
  const right = Math.min(canvas.width, Math.ceil(first[0] + width / scale / cellWidth));
  const bottom = Math.min(canvas.height, Math.ceil(first[1] + height / scale / cellHeight));
  if (right <= left || bottom <= top) return;
  context.imageSmoothingEnabled = cellWidth * scale < 1;
  context.drawImage(
    canvas, left, top, right - left, bottom - top,
    (left - first[0]) * cellWidth * scale, (top - first[1]) * cellHeight * scale,
    (right - left) * cellWidth * scale, (bottom - top) * cellHeight * scale,
  );
}

/** The tile under a level-0 point, or -1. */
function tileAt(cells, grid, x, y) {
  const column = Math.floor((x - grid.origin[0]) / grid.size[0]);
  const row = Math.floor((y - grid.origin[1]) / grid.size[1]);
  const [rows, columns] = grid.shape;
  return column >= 0 && row >= 0 && column < columns && row < rows ? cells[row * columns + column] : -1;
}
