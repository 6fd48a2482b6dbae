// @ts-check
/** The keyboard. */
import { element, isTyping } from "./dom.js";

const PAN = 60; // CSS pixels

/**
 * What the dialog of keys shows, and the actions of the keys that act everywhere.
 * @type {[string, string, Record<string, string>?][]}
 */
const KEYS = [
  ["Arrows", "next and previous mask (in the photograph)"],
  ["Home, End", "first and last mask"],
  ["C", "next of the masks under the pointer", { c: "cycle" }],
  ["Click, Enter", "select the lit mask; with Shift, or held on a touch screen, add it"],
  ["K", "keep, or let go", { k: "keep" }],
  ["H", "hide", { h: "hide" }],
  ["M", "merge the selected masks", { m: "merge" }],
  ["Delete", "delete", { Delete: "remove", Backspace: "remove" }],
  ["Ctrl+Z, Ctrl+Shift+Z", "undo, redo"],
  ["Wheel, +, -, 0", "zoom in, zoom out, fit", { "+": "zoomIn", "=": "zoomIn", "-": "zoomOut", 0: "fit" }],
  ["Drag, Shift+Arrows", "move the photograph"],
  ["V", "compare with the original", { v: "compare" }],
  ["Escape", "select nothing", { Escape: "clear" }],
  ["?", "show these", { "?": "keys" }],
];
/** @type {Record<string, string>} */
const PLAIN = Object.assign({}, ...KEYS.map(([, , acts]) => acts));

/** Writes `KEYS` into a list of definitions. */
export function listKeys(/** @type {HTMLElement} */ list) {
  for (const [names, does] of KEYS) {
    const keys = names.split(", ").map((name) => element("kbd", {}, name));
    list.append(element("div", {}, element("dt", {}, ...keys), element("dd", {}, does)));
  }
}

/**
 * Has keys act.
 * @param {Record<string, (event: KeyboardEvent) => void>} actions by name
 * @param {HTMLElement} viewport arrows act in it alone
 */
export function listen(actions, viewport) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || isTyping(event.target) || document.querySelector("dialog[open]")) return;
    const name = nameOf(event) ?? (event.target === viewport ? arrowOf(event) : null);
    if (!name || !actions[name]) return;
    event.preventDefault();
    actions[name](event);
  });
}

/** @returns {string | null} */
function nameOf(/** @type {KeyboardEvent} */ event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z") return event.shiftKey ? "redo" : "undo";
    return key === "y" ? "redo" : null;
  }
  return event.altKey ? null : (PLAIN[key] ?? null);
}

/** @returns {string | null} */
function arrowOf(/** @type {KeyboardEvent} */ event) {
  if (event.key === "Enter") return "choose";
  if (event.shiftKey) return event.key.startsWith("Arrow") ? "pan" : null;
  /** @type {Record<string, string>} */
  const steps = {
    ArrowRight: "next",
    ArrowDown: "next",
    ArrowLeft: "previous",
    ArrowUp: "previous",
    Home: "first",
    End: "last",
  };
  return steps[event.key] ?? null;
}

/** How far an arrow moves the photograph. */
export function panOf(/** @type {KeyboardEvent} */ event) {
  /** @type {Record<string, [number, number]>} */
  const along = { ArrowLeft: [PAN, 0], ArrowRight: [-PAN, 0], ArrowUp: [0, PAN], ArrowDown: [0, -PAN] };
  return along[event.key] ?? [0, 0];
}

/** The mask before or after the lit one, of those visible. */
export function neighbour(
  /** @type {import("./store.js").State} */ { masks, visible, lit, selected },
  /** @type {string} */ where,
) {
  const ids = masks.filter((mask) => visible.has(mask.id)).map((mask) => mask.id);
  if (!ids.length) return null;
  if (where === "first") return ids[0];
  if (where === "last") return ids[ids.length - 1];
  const at = ids.indexOf(/** @type {number} */ (lit ?? selected[0]));
  if (at < 0) return where === "next" ? ids[0] : ids[ids.length - 1];
  return ids[(at + (where === "next" ? 1 : ids.length - 1)) % ids.length];
}
