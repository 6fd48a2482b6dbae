// @ts-check
/** The form of what changes the search: the server is asked again. */
import { byId, element } from "../dom.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

/** Fields: a parameter's name, its label, and the bounds of its value. */
const FIELDS = [
  { name: "points_per_side", label: "Points per side", min: 1, max: 64, step: 1, limit: "max_points_per_side" },
  { name: "crop_n_layers", label: "Crop layers", min: 0, max: 2, step: 1, limit: "max_crop_n_layers" },
  { name: "pred_iou_thresh", label: "Least predicted IoU", min: 0, max: 1, step: 0.01 },
  { name: "stability_score_thresh", label: "Least stability", min: 0, max: 1, step: 0.01 },
  { name: "box_nms_thresh", label: "Most overlap of boxes", min: 0, max: 1, step: 0.01 },
  { name: "min_mask_region_area", label: "Least hole or island, px", min: 0, max: 1 << 30, step: 1 },
];

/**
 * Builds the form.
 * @param {Store} store
 * @param {(search: Record<string, string>) => void} again is given the parameters that differ from the server's own
 */
export function start(store, again) {
  const form = byId("search-form");
  const fields = form.querySelector(".fields");
  for (const { name, label, min, max, step } of FIELDS) {
    const bounds = { min: String(min), max: String(max), step: String(step) };
    const input = element("input", { type: "number", name, required: "", inputmode: "decimal", ...bounds });
    fields.append(element("label", {}, element("span", {}, label), input));
  }
  const check = element("input", { type: "checkbox", name: "use_m2m" });
  fields.append(element("label", { class: "check" }, check, element("span", {}, "Refine each mask (use_m2m)")));
  form.addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    again(asked(form, store.state.info));
  });
  store.listen((state, before) => {
    if (state.info !== before.info || state.search !== before.search) fill(form, state);
  });
}

/** Writes the values of the last search into the form. */
function fill(/** @type {HTMLFormElement} */ form, /** @type {State} */ { info, search }) {
  if (!info) return;
  for (const { name, limit } of FIELDS) {
    const input = field(form, name);
    if (limit) input.max = String(info.limits[limit]);
    input.value = search[name] ?? String(info.parameters[name]);
    if (name.endsWith("thresh")) input.step = "any";
  }
  field(form, "use_m2m").checked = (search.use_m2m ?? String(info.parameters.use_m2m)) === "true";
}

const field = (/** @type {HTMLFormElement} */ form, /** @type {string} */ name) =>
  /** @type {HTMLInputElement} */ (form.elements.namedItem(name));

/** The parameters in the form that differ from the server's own. */
function asked(/** @type {HTMLFormElement} */ form, /** @type {any} */ info) {
  /** @type {Record<string, string>} */
  const search = {};
  for (const { name } of FIELDS) {
    const value = field(form, name).valueAsNumber;
    if (value !== info?.parameters[name]) search[name] = String(value);
  }
  const refines = field(form, "use_m2m").checked;
  if (refines !== (info?.parameters.use_m2m ?? false)) search.use_m2m = String(refines);
  return search;
}
