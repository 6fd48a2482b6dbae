// @ts-check
import { labelMap } from "../masks/labels.js";
import { greyPng } from "./png.js";

/** @typedef {import("../masks/mask.js").Mask} Mask */

/**
 * A 16-bit grey PNG whose pixels are the numbers of masks, as `format=labelmap` answers it: 0, or the index of the
 * mask plus 1. The smaller mask lies on top, of equal ones the later.
 * @param {number} width
 * @param {number} height
 * @param {Mask[]} masks
 * @returns {Promise<Blob>}
 * @throws {RangeError} for more than 65535 masks
 */
export async function labelMapPng(width, height, masks) {
  return greyPng(width, height, labelMap(width, height, masks));
}
