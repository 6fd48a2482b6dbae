// @ts-check
/** Edits of masks. Each answers what `Store.edit` takes, or null if there is nothing to change. */
import { mergedMask } from "./masks/mask.js";

/** @typedef {import("./store.js").State} State @typedef {import("./masks/mask.js").Mask} Mask */

/** The masks that an edit is about: those selected, else the one lit. */
export function targets(/** @type {State} */ state) {
  const ids = state.selected.length ? state.selected : state.lit === null ? [] : [state.lit];
  return state.masks.filter((mask) => ids.includes(mask.id) && state.visible.has(mask.id));
}

/** The masks with `changes` in those of `chosen`. */
function changed(
  /** @type {readonly Mask[]} */ all,
  /** @type {Mask[]} */ chosen,
  /** @type {Partial<Mask>} */ changes,
) {
  const ids = new Set(chosen.map((mask) => mask.id));
  return all.map((mask) => (ids.has(mask.id) ? Object.freeze({ ...mask, ...changes }) : mask));
}

/** Keeps masks; lets them go if all are kept. */
export function keep(/** @type {State} */ state) {
  const chosen = targets(state);
  if (!chosen.length) return null;
  const kept = !chosen.every((mask) => mask.kept);
  return { masks: changed(state.masks, chosen, { kept }) };
}

/** Lets one mask go, wherever it stands. */
export function letGo(/** @type {State} */ state, /** @type {number} */ id) {
  const chosen = state.masks.filter((mask) => mask.id === id);
  return { masks: changed(state.masks, chosen, { kept: false }) };
}

/** Hides masks. Hidden masks are not kept. */
export function hide(/** @type {State} */ state) {
  const chosen = targets(state);
  return chosen.length ? { masks: changed(state.masks, chosen, { hidden: true, kept: false }) } : null;
}

/** Shows all that is hidden. */
export function showHidden(/** @type {State} */ state) {
  const chosen = state.masks.filter((mask) => mask.hidden);
  return chosen.length ? { masks: changed(state.masks, chosen, { hidden: false }) } : null;
}

/** The masks without `chosen`, which go on dropping their duplicates. */
const without = (/** @type {State} */ { masks, gone }, /** @type {Mask[]} */ chosen) => ({
  masks: masks.filter((mask) => !chosen.includes(mask)),
  gone: [...gone, ...chosen],
});

/** Deletes masks. */
export function remove(/** @type {State} */ state) {
  const chosen = targets(state);
  return chosen.length ? without(state, chosen) : null;
}

/** Gives a kept mask a name. */
export function rename(/** @type {State} */ state, /** @type {number} */ id, /** @type {string} */ name) {
  const chosen = state.masks.filter((mask) => mask.id === id && mask.name !== name);
  return chosen.length ? { masks: changed(state.masks, chosen, { name }) } : null;
}

/**
 * Makes one mask of those selected.
 * @param {State} state
 * @param {number} id of the new mask
 */
export function merge(state, id) {
  const chosen = targets(state);
  if (chosen.length < 2) return null;
  const merged = Object.freeze({ ...mergedMask(id, chosen), kept: chosen.some((mask) => mask.kept) });
  const { masks, gone } = without(state, chosen);
  return { merged, largest: largestOf(chosen), others: masks, masks: [...masks, merged], gone, selected: [id] };
}

const largestOf = (/** @type {Mask[]} */ masks) => masks.reduce((best, mask) => (mask.area > best.area ? mask : best));
