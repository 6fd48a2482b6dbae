// @ts-check
import { assignColours, colourOf, touching } from "./palette.js";

/** @typedef {import("./palette.js").Colour} Colour */
/** @typedef {{id: number, runs: Uint32Array, area: number}} Paintable */

const MOST_LABELS = 65535; // what 16 bits hold, without the background's 0

/**
 * Indices of masks in the order in which they are painted: the smaller lies on the larger, of equal ones the later.
 * @param {Paintable[]} masks
 * @returns {number[]}
 */
export function paintingOrder(masks) {
  return [...masks.keys()].sort((a, b) => masks[b].area - masks[a].area);
}

/**
 * Calls back for each run of a mask.
 * @param {Uint32Array} runs
 * @param {(start: number, end: number) => void} visit positions column by column; end is exclusive
 */
export function forEachRun(runs, visit) {
  let end = 0;
  for (let i = 0; i + 1 < runs.length; i += 2) {
    const start = end + runs[i];
    end = start + runs[i + 1];
    visit(start, end);
  }
}

/**
 * Which mask lies on top of each pixel: 0 for none, else what `labelOf` says.
 * @param {number} width
 * @param {number} height
 * @param {Paintable[]} masks
 * @param {(index: number, rank: number) => number} [labelOf] of the mask with this index, which is painted as the
 *   rank-th; the index plus 1 without it
 * @returns {Uint16Array} [width * height], column by column
 * @throws {RangeError} for more than 65535 masks
 */
export function labelMap(width, height, masks, labelOf = (index) => index + 1) {
  if (masks.length > MOST_LABELS) {
    throw new RangeError(`${masks.length} masks are more than the ${MOST_LABELS} that 16 bits tell apart. Keep fewer.`);
  }
  const labels = new Uint16Array(width * height);
  paintingOrder(masks).forEach((index, rank) => {
    const label = labelOf(index, rank);
    forEachRun(masks[index].runs, (start, end) => labels.fill(label, start, end));
  });
  return labels;
}

/**
 * A colour of the palette for each mask. Masks that touch get colours that differ. These are the colours of the
 * server's overlay of these masks, if it is asked for a style or an opacity.
 * @param {number} width
 * @param {number} height
 * @param {Paintable[]} masks
 * @returns {Map<number, Colour>} by id
 */
export function coloursOf(width, height, masks) {
  const byRank = labelMap(width, height, masks, (_, rank) => rank + 1);
  const pairs = touching(byRank, height).map(([a, b]) => /** @type {[number, number]} */ ([a - 1, b - 1]));
  const colours = assignColours(masks.length, pairs);
  return new Map(paintingOrder(masks).map((index, rank) => [masks[index].id, colourOf(colours[rank])]));
}
