// @ts-check
/** @typedef {import("./mask.js").Mask} Mask */

/**
 * What sliders say. What is missing filters nothing.
 * @typedef {object} Thresholds
 * @property {number} [minIou] masks of this predicted IoU or less are dropped, as by the server's `pred_iou_thresh`
 * @property {number} [minStability] masks of a lower stability score are dropped, as by `stability_score_thresh`
 * @property {number} [minArea] masks of fewer pixels are dropped, as by `min_mask_area`
 * @property {number} [maxOverlap] from `LEAST_OVERLAP` to 1: of two masks of a greater IoU the one of the lower
 *   predicted IoU is dropped, as by `mask_nms_thresh`
 */

/**
 * The ids of the masks that pass, by the rules of sam2_amg/answers/filters.py. Scores are numbers of single precision,
 * and are compared with thresholds as such, as the server does it. Masks that are kept pass whatever the thresholds say.
 * They and merged ones come first: they drop their duplicates, and are never dropped as such.
 * @param {readonly Mask[]} masks in the server's order
 * @param {[number, number, number][]} pairs of `overlappingPairs`; a mask that is in none overlaps no other
 * @param {Thresholds} thresholds
 * @returns {Set<number>}
 */
export function visibleIds(masks, pairs, { minIou = 0, minStability = 0, minArea = 0, maxOverlap = 1 }) {
  const passing = masks.filter(
    (mask) =>
      mask.kept ||
      ((minIou <= 0 || mask.predictedIou > Math.fround(minIou)) &&
        (minStability <= 0 || mask.stability >= Math.fround(minStability)) &&
        mask.area >= minArea),
  );
  return suppress(passing, pairs, maxOverlap);
}

/**
 * Non-maximum suppression by the IoU of masks: from the highest predicted IoU to the lowest, of equal ones the earlier
 * first, a mask is dropped if its IoU with a mask that was kept is over the threshold.
 * @param {Mask[]} masks
 * @param {[number, number, number][]} pairs
 * @param {number} maxOverlap
 * @returns {Set<number>}
 */
function suppress(masks, pairs, maxOverlap) {
  const partners = partnersOf(pairs, maxOverlap);
  /** @type {Set<number>} */
  const kept = new Set();
  const isByHand = (/** @type {Mask} */ mask) => mask.kept || mask.origin === "merged";
  const order = (/** @type {Mask} */ a, /** @type {Mask} */ b) =>
    Number(isByHand(b)) - Number(isByHand(a)) || b.predictedIou - a.predictedIou;
  for (const mask of [...masks].sort(order)) {
    if (isByHand(mask) || !partners.get(mask.id)?.some((other) => kept.has(other))) kept.add(mask.id);
  }
  return kept;
}

/**
 * @param {[number, number, number][]} pairs
 * @param {number} maxOverlap
 * @returns {Map<number, number[]>} of each id the ids of the masks that overlap it by more
 */
function partnersOf(pairs, maxOverlap) {
  /** @type {Map<number, number[]>} */
  const partners = new Map();
  const add = (/** @type {number} */ id, /** @type {number} */ other) => {
    const list = partners.get(id);
    if (list) list.push(other);
    else partners.set(id, [other]);
  };
  for (const [a, b, iou] of pairs) {
    if (iou <= maxOverlap) continue;
    add(a, b);
    add(b, a);
  }
  return partners;
}
