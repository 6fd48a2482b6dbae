// @ts-check
import { coloursOf, forEachRun, labelMap, paintingOrder } from "../masks/labels.js";
import { boxOf } from "../masks/rle.js";
import { photoPixels } from "./photo.js";
import { colourPng } from "./png.js";

/** @typedef {import("../masks/mask.js").Mask} Mask */
/** @typedef {import("../masks/palette.js").Colour} Colour */
/** @typedef {"fill" | "outline" | "boxes"} Style */

/** @type {Colour} */
const BLACK = [0, 0, 0];
const FILL_OPACITY = 0.55;
const PIXELS_OF_LINE = 600; // a line gets a pixel wider for each of these of the image's shorter side
const NEIGHBOURS = 4;

/**
 * The photograph with masks drawn on it, a PNG of its size, by the rules of sam2_amg/answers/overlay.py: the smaller
 * mask on the larger.
 * @param {CanvasImageSource} photo
 * @param {number} width
 * @param {number} height
 * @param {Mask[]} masks
 * @param {object} [options]
 * @param {Style} [options.style] "fill" without it, with white outlines
 * @param {number} [options.opacity] of the colours; without it 0.55 for "fill", 1 for the others
 * @param {Map<number, Colour>} [options.colours] by id; without it those of the server
 * @returns {Promise<Blob>}
 */
export async function overlayPng(photo, width, height, masks, { style = "fill", opacity, colours } = {}) {
  const image = photoPixels(photo, width, height);
  const byId = colours ?? coloursOf(width, height, masks);
  const table = paintingOrder(masks).map((index) => byId.get(masks[index].id) ?? BLACK);
  if (style === "boxes") blend(image, boxesOf(image, masks), table, opacity ?? 1);
  else drawLayers(image, masks, style, table, opacity);
  return colourPng(image);
}

/**
 * @typedef {object} Picture
 * @property {number} width
 * @property {number} height
 * @property {Uint8ClampedArray} data RGBA, row by row
 */

/**
 * @param {Picture} image
 * @param {Mask[]} masks
 * @param {"fill" | "outline"} style
 * @param {Colour[]} table a colour for each rank of `paintingOrder`
 * @param {number} [opacity]
 */
function drawLayers(image, masks, style, table, opacity) {
  const { width, height } = image;
  const labels = labelMap(width, height, masks, (_, rank) => rank + 1);
  const lines = outlinesOf(image, masks);
  if (style === "fill") {
    blend(image, labels, table, opacity ?? FILL_OPACITY);
    blend(image, lines, [[255, 255, 255]], 1);
    return;
  }
  const wide = thicker(lines, labels, height, lineWidth(image));
  for (let i = 0; i < labels.length; i++) if (!wide[i]) labels[i] = 0;
  blend(image, labels, table, opacity ?? 1);
}

/**
 * Puts the colour of each pixel's label over the image. Sums are of single precision and halves go to even numbers, as
 * in the server.
 * @param {Picture} image
 * @param {Uint8Array | Uint16Array} labels column by column; 0 leaves the pixel as it is
 * @param {Colour[]} table the colour of label 1 first
 * @param {number} opacity
 */
function blend({ width, height, data }, labels, table, opacity) {
  const over = Math.fround(opacity);
  const under = Math.fround(1 - opacity);
  const weighted = table.map((colour) => colour.map((value) => Math.fround(value * over)));
  for (let i = 0; i < labels.length; i++) {
    if (!labels[i]) continue;
    const colour = weighted[labels[i] - 1];
    const at = 4 * ((i % height) * width + Math.floor(i / height));
    for (let channel = 0; channel < 3; channel++) {
      data[at + channel] = Math.fround(Math.fround(data[at + channel] * under) + colour[channel]); // rounds half to even
    }
  }
}

/**
 * 1 for the pixels at the edge of the mask on top, else 0. They are those with a neighbour, of four, outside the mask;
 * the image's border does not count as outside.
 * @param {Picture} image
 * @param {Mask[]} masks
 * @returns {Uint8Array} [width * height], column by column
 */
function outlinesOf({ width, height }, masks) {
  const lines = new Uint8Array(width * height);
  const around = new Uint8Array(width * height); // how many neighbours of a pixel are within the mask, or the image
  for (const index of paintingOrder(masks)) {
    const { runs } = masks[index];
    forEachRun(runs, (start, end) => countNeighbours(around, start, end, width, height));
    forEachRun(runs, (start, end) => {
      for (let i = start; i < end; i++) lines[i] = around[i] < NEIGHBOURS ? 1 : 0;
    });
    for (const step of [-height, 0, height]) {
      forEachRun(runs, (start, end) => around.fill(0, Math.max(0, start + step), Math.max(0, end + step)));
    }
  }
  return lines;
}

/**
 * Counts a run for all that are its neighbours, and the image's border for the run.
 * @param {Uint8Array} around
 * @param {number} start
 * @param {number} end
 * @param {number} width
 * @param {number} height
 */
function countNeighbours(around, start, end, width, height) {
  for (let i = start; i < end; i++) {
    const row = i % height;
    around[i] += (row === 0 ? 1 : i > start ? 1 : 0) + (row === height - 1 ? 1 : i + 1 < end ? 1 : 0);
    if (i < height) around[i]++;
    else around[i - height]++;
    if (i >= (width - 1) * height) around[i]++;
    else around[i + height]++;
  }
}

/**
 * Outlines that grow inward to a width of so many pixels.
 * @param {Uint8Array} lines
 * @param {Uint16Array} labels
 * @param {number} height
 * @param {number} wanted
 * @returns {Uint8Array}
 */
function thicker(lines, labels, height, wanted) {
  let wide = lines;
  for (let width = 1; width < wanted; width++) {
    const before = wide;
    wide = before.slice();
    for (let i = 0; i < labels.length; i++) {
      if (!before[i]) continue;
      const row = i % height;
      if (row > 0 && labels[i - 1] === labels[i]) wide[i - 1] = 1;
      if (row < height - 1 && labels[i + 1] === labels[i]) wide[i + 1] = 1;
      if (labels[i - height] === labels[i]) wide[i - height] = 1;
      if (labels[i + height] === labels[i]) wide[i + height] = 1;
    }
  }
  return wide;
}

/**
 * A label map of the lines of the masks' boxes, which lie inside the boxes. Those of smaller masks are on top.
 * @param {Picture} image
 * @param {Mask[]} masks
 * @returns {Uint16Array} [width * height], column by column; the rank in `paintingOrder` plus 1
 */
function boxesOf(image, masks) {
  const { width, height } = image;
  const labels = new Uint16Array(width * height);
  const line = lineWidth(image);
  paintingOrder(masks).forEach((index, rank) => {
    const [left, top, columns, rows] = boxOf(masks[index].runs, height);
    for (let x = left; x < left + columns; x++) {
      const atSide = x < left + line || x >= left + columns - line;
      const thick = atSide ? rows : Math.min(line, rows);
      labels.fill(rank + 1, x * height + top, x * height + top + thick);
      labels.fill(rank + 1, x * height + top + rows - thick, x * height + top + rows);
    }
  });
  return labels;
}

/**
 * @param {Picture} image
 * @returns {number}
 */
function lineWidth({ width, height }) {
  return 1 + Math.floor(Math.min(width, height) / PIXELS_OF_LINE);
}
