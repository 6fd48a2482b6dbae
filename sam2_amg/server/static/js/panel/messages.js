// @ts-check
/** What is said over the photograph: progress, faults, notes, the numbers of the lit mask. */
import { Refusal } from "../api.js";
import { byId, eachFrame, element, say } from "../dom.js";
import { rgb } from "../painter.js";
import { numbers, title } from "../words.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

const SINCE = " · ";

/** Progress; null if nothing is under way. */
export function tell(/** @type {string | null} */ text) {
  byId("working").toggleAttribute("data-idle", text === null);
  const [what, ...more] = (text ?? "").split(SINCE);
  const place = byId("progress");
  const [said, silent] = place.children;
  say(said, what);
  say(silent, more.length ? SINCE + more.join(SINCE) : ""); // seconds and percents are not read out
}

/** A plain sentence about the photograph; null for none. */
export function note(/** @type {string | null} */ text) {
  byId("note").hidden = text === null;
  say(byId("note"), text ?? "");
}

let counting = 0;

/** Hides the fault. */
export function forgive() {
  clearInterval(counting);
  byId("fault").hidden = true;
}

/**
 * Says what is wrong.
 * @param {Error} error
 * @param {(() => void) | null} again tries once more, if that may help
 */
export function fault(error, again) {
  clearInterval(counting);
  const button = byId("retry");
  const seconds = (again && error instanceof Refusal && error.retryAfter) || null;
  const more = element("span", { class: "hidden-text" }, seconds ? ` The page tries again in ${seconds} seconds.` : "");
  byId("fault").querySelector("p").replaceChildren(error.message, more);
  button.hidden = !again;
  button.onclick = () => {
    forgive();
    again?.();
  };
  if (seconds) countDown(button, seconds);
  else say(button.firstElementChild, "");
  byId("fault").hidden = false;
}

/** Counts down on a button, and presses it at the end. The alert has said it: what ticks is not read out. */
function countDown(/** @type {HTMLButtonElement} */ button, /** @type {number} */ seconds) {
  const end = performance.now() + seconds * 1000;
  const show = () => {
    const left = Math.ceil((end - performance.now()) / 1000);
    say(/** @type {HTMLElement} */ (button.firstElementChild), left > 0 ? ` in ${left} s` : "");
    if (left <= 0) button.click();
  };
  show();
  counting = setInterval(show, 250);
}

export function start(/** @type {Store} */ store) {
  byId("dismiss").addEventListener("click", forgive);
  const show = eachFrame(() => showNumbers(store.state));
  store.listen((state, before) => {
    if (state.lit !== before.lit || state.masks !== before.masks || state.selected !== before.selected) show();
  });
}

/** Shows the lit mask's numbers, or those of the only one selected. */
function showNumbers(/** @type {State} */ { lit, selected, masks, image, scene }) {
  const place = byId("numbers");
  const id = lit ?? (selected.length === 1 ? selected[0] : null);
  const mask = masks.find((one) => one.id === id);
  if (!mask) {
    place.replaceChildren();
    return;
  }
  const swatch = element("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.setProperty("--colour", rgb(scene.colours.get(mask.id)));
  const name = element("strong", {}, mask.kept ? `${title(mask)}, kept` : title(mask));
  place.replaceChildren(swatch, name, element("span", {}, numbers(mask, image.width * image.height)));
}
