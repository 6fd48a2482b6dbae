// @ts-check
import { areaOf, boxOf, intersectionArea } from "./rle.js";

/** Pairs of masks that overlap by no more than this IoU are left out. */
export const LEAST_OVERLAP = 0.3;

/**
 * The pairs of masks whose pixels overlap by more than `LEAST_OVERLAP`: [id, id of a later mask, IoU].
 * @param {{id: number, runs: Uint32Array}[]} masks in the server's order
 * @param {number} height of the image
 * @returns {[number, number, number][]}
 */
export function overlappingPairs(masks, height) {
  const measured = masks.map(({ id, runs }) => ({ id, runs, area: areaOf(runs), box: boxOf(runs, height) }));
  /** @type {[number, number, number][]} */
  const pairs = [];
  measured.forEach((a, index) => {
    for (const b of measured.slice(index + 1)) {
      if (mostOverlap(a, b) <= LEAST_OVERLAP) continue;
      const shared = intersectionArea(a.runs, b.runs);
      const iou = shared / (a.area + b.area - shared);
      if (iou > LEAST_OVERLAP) pairs.push([a.id, b.id, iou]);
    }
  });
  return pairs;
}

/**
 * The pairs that a mask makes with others, as `overlappingPairs` has them.
 * @param {{id: number, runs: Uint32Array}} mask comes after the others
 * @param {readonly {id: number, runs: Uint32Array}[]} others
 * @param {number} height of the image
 * @returns {[number, number, number][]}
 */
export function pairsWith(mask, others, height) {
  return others.flatMap((other) => overlappingPairs([other, mask], height));
}

/**
 * The greatest IoU that two masks of these areas and boxes can have.
 * @param {{area: number, box: number[]}} a
 * @param {{area: number, box: number[]}} b
 * @returns {number}
 */
function mostOverlap(a, b) {
  const width = Math.min(a.box[0] + a.box[2], b.box[0] + b.box[2]) - Math.max(a.box[0], b.box[0]);
  const height = Math.min(a.box[1] + a.box[3], b.box[1] + b.box[3]) - Math.max(a.box[1], b.box[1]);
  if (width <= 0 || height <= 0) return 0;
  const shared = Math.min(width * height, a.area, b.area);
  return shared / (a.area + b.area - shared);
}
