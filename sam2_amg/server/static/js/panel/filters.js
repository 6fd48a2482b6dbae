// @ts-check
/** Sliders that filter masks at once, by the scores that came with them. */
import { byId, say } from "../dom.js";
import { OPEN } from "../store.js";
import { count, masks, score } from "../words.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

const LARGEST = 0.1; // of the image's pixels, at the end of the slider of areas

/** Pixels for a position of the slider of areas, 0 to 100: fine for small masks. */
const areaAt = (/** @type {number} */ position, /** @type {number} */ pixels) =>
  Math.round((position / 100) ** 3 * LARGEST * pixels);

/** The position for an area. */
const positionOf = (/** @type {number} */ area, /** @type {number} */ pixels) =>
  Math.round(Math.cbrt(area / (LARGEST * pixels)) * 100);

/** The least of a score that the server has looked for: it does not return masks below. */
function floorOf(/** @type {State} */ { info, search }, /** @type {string} */ name) {
  return Number(search[name] ?? info?.parameters[name] ?? 0);
}

/** The filters that leave an answer as it is. */
export function openFilters(/** @type {State} */ state) {
  const minIou = floorOf(state, "pred_iou_thresh");
  return Object.freeze({ ...OPEN, minIou, minStability: floorOf(state, "stability_score_thresh") });
}

export function start(/** @type {Store} */ store) {
  const change = (/** @type {Partial<import("../store.js").Filters>} */ changes) =>
    store.set({ filters: Object.freeze({ ...store.state.filters, ...changes }) });
  const slide = (/** @type {string} */ id, /** @type {(value: number) => any} */ changes) =>
    byId(id).addEventListener("input", () => change(changes(byId(id).valueAsNumber)));
  slide("min-iou", (minIou) => ({ minIou }));
  slide("min-stability", (minStability) => ({ minStability }));
  slide("min-area", (position) => ({ minArea: areaAt(position, pixelsOf(store.state)) }));
  slide("max-overlap", (maxOverlap) => ({ maxOverlap }));
  byId("reset-filters").addEventListener("click", () => store.set({ filters: openFilters(store.state) }));
  store.listen((state, before) => {
    if (state.scene !== before.scene) setFloors(state);
    if (state.filters !== before.filters || state.image !== before.image || state.scene !== before.scene) show(state);
    if (state.visible !== before.visible || state.masks !== before.masks) showCount(state);
  });
}

const pixelsOf = (/** @type {State} */ { image }) => (image ? image.width * image.height : 1);

function setFloors(/** @type {State} */ state) {
  byId("min-iou").min = String(floorOf(state, "pred_iou_thresh"));
  byId("min-stability").min = String(floorOf(state, "stability_score_thresh"));
}

function show(/** @type {State} */ state) {
  const { minIou, minStability, minArea, maxOverlap } = state.filters;
  const position = positionOf(minArea, pixelsOf(state));
  put("min-iou", minIou, minIou, score(minIou));
  put("min-stability", minStability, minStability, score(minStability));
  put(
    "min-area",
    areaAt(byId("min-area").valueAsNumber, pixelsOf(state)) === minArea ? byId("min-area").value : position,
    minArea,
    `${count(minArea)} px`,
  );
  put("max-overlap", maxOverlap, maxOverlap, maxOverlap < 1 ? maxOverlap.toFixed(2) : "any");
  const open = openFilters(state);
  byId("reset-filters").disabled = Object.entries(open).every(
    ([name, value]) => state.filters[/** @type {keyof typeof open} */ (name)] === value,
  );
}

/** Shows a slider's position, and what it stands for. */
function put(
  /** @type {string} */ id,
  /** @type {number | string} */ position,
  /** @type {number} */ value,
  /** @type {string} */ text,
) {
  const slider = byId(id);
  if (slider.value !== String(position)) slider.value = String(position);
  slider.setAttribute("aria-valuetext", text);
  const share = (Number(slider.value) - Number(slider.min)) / (Number(slider.max) - Number(slider.min) || 1);
  slider.style.setProperty("--share", String(share));
  byId(`${id}-value`).dataset.value = String(value);
  say(byId(`${id}-value`), text);
}

function showCount(/** @type {State} */ { visible, masks: all }) {
  const place = byId("count");
  Object.assign(place.dataset, { visible: String(visible.size), total: String(all.length) });
  say(place, visible.size === all.length ? count(all.length) : `${count(visible.size)} of ${count(all.length)}`);
  place.title = `${masks(visible.size)} shown`;
}
