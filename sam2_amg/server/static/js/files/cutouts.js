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
  const pixels = photoPixels(photo, width, height, box);
  const [left, top, columns, rows] = box;
  const alpha = new Uint8Array(columns * rows);
  forEachRun(mask.runs, (start, end) => {
    for (let i = start; i < end; i++) alpha[(i % height - top) * columns + Math.floor(i / height) - left] = 255;
  });
  for (let i = 0; i < alpha.length; i++) {
    if (alpha[i]) pixels.data[4 * i + 3] = alpha[i];
    else pixels.data.fill(0, 4 * i, 4 * i + 4); // what is outside the mask stays at home
  }
  return colourPng(pixels);
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
