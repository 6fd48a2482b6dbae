// @ts-check
import { encodeCounts } from "../masks/rle.js";

/** @typedef {import("../masks/mask.js").Mask} Mask */

/**
 * The server's records of masks, with compressed run lengths, as `format=records&counts=compressed` answers them. A
 * mask that has a name has a further key `name`.
 * @param {Mask[]} masks
 * @returns {object[]}
 */
export function recordsList(masks) {
  return masks.map((mask) => ({
    ...mask.record,
    segmentation: segmentationOf(mask),
    ...(mask.name && { name: mask.name }),
  }));
}

/**
 * COCO's compressed run lengths.
 * @param {Mask} mask
 * @returns {{size: [number, number], counts: string}}
 */
export function segmentationOf({ record, runs }) {
  return { size: record.segmentation.size, counts: encodeCounts(runs) };
}
