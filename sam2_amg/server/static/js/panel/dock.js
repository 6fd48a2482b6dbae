// @ts-check
/** The bar below the photograph: style, opacity, comparison, zoom. */
import { byId, say } from "../dom.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

export const ZOOM = 1.4; // of a key or a button
const STEP = 0.02; // of the divider by an arrow

export function start(/** @type {Store} */ store, /** @type {import("../view.js").View} */ view) {
  for (const radio of document.getElementsByName("style")) {
    radio.addEventListener("change", () => store.set({ style: /** @type {HTMLInputElement} */ (radio).value }));
  }
  byId("opacity").addEventListener("input", () => {
    const { style, opacity } = store.state;
    store.set({ opacity: Object.freeze({ ...opacity, [style]: byId("opacity").valueAsNumber }) });
  });
  byId("zoom-in").addEventListener("click", () => view.zoom(ZOOM));
  byId("zoom-out").addEventListener("click", () => view.zoom(1 / ZOOM));
  byId("zoom-fit").addEventListener("click", () => view.fit());
  byId("compare").addEventListener("click", () => compare(store));
  listenToDivider(byId("divider"), store, view);
  view.onPlace.push(() => say(byId("zoom"), `${Math.round(view.place.scale * 100)} %`));
  store.listen((state, before) => {
    if (state.style !== before.style || state.opacity !== before.opacity) showOpacity(state);
    if (state.compare !== before.compare) showDivider(state, view);
  });
  showOpacity(store.state);
}

/** Shows or hides the divider. */
export function compare(/** @type {Store} */ store) {
  store.set({ compare: store.state.compare === null ? 0.5 : null });
}

function showOpacity(/** @type {State} */ { style, opacity }) {
  const slider = byId("opacity");
  if (slider.valueAsNumber !== opacity[style]) slider.value = String(opacity[style]);
  slider.setAttribute("aria-valuetext", `${Math.round(opacity[style] * 100)} %`);
  slider.style.setProperty("--share", String(opacity[style]));
}

function listenToDivider(
  /** @type {HTMLElement} */ divider,
  /** @type {Store} */ store,
  /** @type {import("../view.js").View} */ view,
) {
  const put = (/** @type {number} */ share) => store.set({ compare: Math.min(1, Math.max(0, share)) });
  divider.addEventListener("pointerdown", (event) => divider.setPointerCapture(event.pointerId));
  divider.addEventListener("pointermove", (event) => {
    event.stopPropagation();
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const box = view.root.getBoundingClientRect();
    put((event.clientX - box.left) / box.width);
  });
  divider.addEventListener("keydown", (event) => {
    /** @type {Record<string, number>} */
    const steps = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, Home: -1, End: 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    put((store.state.compare ?? 0.5) + steps[event.key]);
  });
}

function showDivider(/** @type {State} */ { compare: at }, /** @type {import("../view.js").View} */ view) {
  const divider = byId("divider");
  const left = at === null ? "0" : `${(at * 100).toFixed(2)}%`;
  divider.hidden = at === null;
  divider.style.left = left;
  divider.setAttribute("aria-valuenow", String(Math.round((at ?? 0) * 100)));
  divider.setAttribute("aria-valuetext", `${Math.round((at ?? 0) * 100)} % original`);
  byId("compare").setAttribute("aria-pressed", String(at !== null));
  for (const canvas of [view.canvases.masks, view.canvases.lit])
    canvas.style.clipPath = at === null ? "" : `inset(0 0 0 ${left})`;
}
