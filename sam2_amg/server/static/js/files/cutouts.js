// @ts-check
import { boxOf } from "../masks/rle.js";
import { forEachRun } from "../masks/labels.js";
import { photoPixels } from "./photo.js";
import { colourPng } from "./png.js";

/** @typedef {import("../masks/mask.js").Mask} Mask */

/**
 * The photograph within a mask: a PNG of the size of the mask's box, transparent outside the mask.
 * @param {CanvasImageSource} photo
 * @param {number} width of the image
 * @param {number} height
 * @param {Mask} mask not empty
 * @returns {Promise<Blob>}
 */
export async function cutOutPng(photo, width, height, mask) {
  const box = boxOf(mask.runs, height);
  const [left, top, columns, rows] = box;
  const cut = new ImageData(columns, rows); // what is outside the mask stays at home
  const from = new Uint32Array(photoPixels(photo, width, height, box).data.buffer); // opaque
  const to = new Uint32Array(cut.data.buffer);
  forEachRun(mask.runs, (start, end) => {
    for (let i = start; i < end; i++) {
      const at = (i % height - top) * columns + Math.floor(i / height) - left;
      to[at] = from[at];
    }
  });
  return colourPng(cut);
}

/**
 * A file name for each cut-out: its number, from 1, and its name.
 * @param {Mask[]} masks
 * @returns {string[]} "01-dog.png"
 */
export function cutOutNames(masks) {
  const digits = String(masks.length).length;
  return masks.map(({ name }, index) => {
    const word = name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
    return `${String(index + 1).padStart(digits, "0")}${word && "-"}${word}.png`;
  });
}
