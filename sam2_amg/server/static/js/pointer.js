// @ts-check
/** The pointer over the photograph: hover lights a mask, a click selects it, a drag moves the photograph. */
import { pixelAt } from "./viewport.js";

/** @typedef {import("./store.js").Store} Store @typedef {import("./view.js").View} View */

const CLICK = 5; // CSS pixels that a click may move
const WHEEL = 0.0016; // zoom of a wheel's pixel, as a logarithm
const LINE = 18; // CSS pixels of a wheel's line
const DOUBLE = 350; // milliseconds
const LONG = 450; // milliseconds of a touch that adds to what is selected, as Shift does
const NEAR = 8; // CSS pixels between two clicks that are one double click

export class Pointer {
  constructor(/** @type {View} */ view, /** @type {Store} */ store) {
    this.view = view;
    this.store = store;
    /** @type {{x: number, y: number} | null} where the pointer is, if it is over the photograph */
    this.at = null;
    /** @type {readonly number[] | null} visible masks under the pointer, the smallest first; null if not known */
    this.stack = null;
    /** @type {Map<number, {x: number, y: number}>} pointers that are down */
    this.down = new Map();
    this.travelled = 0;
    this.pressed = 0; // when, in milliseconds
    this.lastTap = { time: -Infinity, x: 0, y: 0 };
    const { root } = view;
    root.addEventListener("pointermove", (event) => this.move(event));
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointerup", (event) => this.release(event));
    root.addEventListener("pointercancel", (event) => this.down.delete(event.pointerId));
    root.addEventListener("pointerleave", () => this.leave());
    root.addEventListener("contextmenu", (event) => {
      if (/** @type {PointerEvent} */ (event).pointerType === "touch") event.preventDefault(); // a long one
    });
    root.addEventListener("wheel", (event) => this.turn(event), { passive: false });
  }

  /** The point of an event, in CSS pixels of the viewport. */
  point(/** @type {MouseEvent} */ event) {
    const box = this.view.root.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  move(/** @type {PointerEvent} */ event) {
    const at = this.point(event);
    const last = this.down.get(event.pointerId);
    if (!last) {
      this.hover(at);
      return;
    }
    this.down.set(event.pointerId, at);
    if (this.down.size === 2) this._pinch(event.pointerId, last, at);
    else this._drag(at.x - last.x, at.y - last.y);
  }

  /**
   * The visible masks at a point, the smallest first; reads the texture once.
   * @param {{x: number, y: number}} at
   * @returns {number[]}
   */
  stackAt(at) {
    const { scene, visible } = this.store.state;
    if (!scene) return [];
    const pixel = pixelAt(this.view.place, at.x, at.y);
    return scene.stacks.at(pixel.x, pixel.y).filter((/** @type {number} */ id) => visible.has(id));
  }

  /** Lights the smallest visible mask at a point, unless the same masks were there before and one of them is lit. */
  hover(/** @type {{x: number, y: number}} */ at) {
    const stack = this.stackAt(at);
    const known = this.stack;
    const { lit } = this.store.state;
    this.at = at;
    const isKnown = known && stack.length === known.length && stack.every((id, i) => id === known[i]);
    if (isKnown && (lit === null ? !stack.length : stack.includes(lit))) return; // keys may have lit another
    this.stack = stack;
    this.view.root.dataset.stack = stack.join(",");
    const top = stack.length ? stack[0] : null;
    if (top !== lit) this.store.set({ lit: top });
  }

  /** Lights the next of the masks under the pointer. */
  cycle() {
    const stack = this.at ? this.stackAt(this.at) : [];
    if (!stack.length) return;
    const at = stack.indexOf(/** @type {number} */ (this.store.state.lit));
    this.store.set({ lit: stack[(at + 1) % stack.length] });
  }

  /** Forgets which masks are under the pointer, as they or the place of the photograph have changed. */
  forget() {
    this.stack = null;
    delete this.view.root.dataset.stack;
  }

  press(/** @type {PointerEvent} */ event) {
    if (event.button > 1 || /** @type {Element} */ (event.target).closest("[role=slider]")) return;
    if (event.button === 1) event.preventDefault();
    this.down.set(event.pointerId, this.point(event));
    this.view.root.setPointerCapture(event.pointerId);
    if (this.down.size > 1) return;
    this.travelled = 0;
    this.pressed = event.timeStamp;
  }

  release(/** @type {PointerEvent} */ event) {
    if (!this.down.delete(event.pointerId)) return;
    delete this.view.root.dataset.dragging;
    if (this.travelled > CLICK || this.down.size || event.button !== 0) return;
    const at = this.point(event);
    const last = this.lastTap;
    this.lastTap = { time: event.timeStamp, ...at };
    const isNear = Math.hypot(at.x - last.x, at.y - last.y) < NEAR;
    if (isNear && event.timeStamp - last.time < DOUBLE && !event.shiftKey) {
      this.view.fit();
      return;
    }
    const isLong = event.pointerType !== "mouse" && event.timeStamp - this.pressed > LONG;
    this.hover(at);
    this.choose(this.stack?.length ? this.store.state.lit : null, event.shiftKey || isLong);
  }

  /** Selects a mask, or none; with `adds` it joins or leaves those selected. */
  choose(/** @type {number | null} */ id, /** @type {boolean} */ adds) {
    const { selected } = this.store.state;
    if (id === null) {
      if (!adds && selected.length) this.store.set({ selected: [] });
      return;
    }
    const others = selected.filter((one) => one !== id);
    if (!adds) this.store.set({ selected: [id] });
    else this.store.set({ selected: others.length < selected.length ? others : [...others, id] });
  }

  leave() {
    if (this.down.size) return;
    this.at = null;
    this.forget();
    if (this.store.state.lit !== null) this.store.set({ lit: null });
  }

  turn(/** @type {WheelEvent} */ event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE : 1);
    const factor = Math.exp(-pixels * WHEEL * (event.ctrlKey ? 5 : 1)); // ctrlKey: a pinch of a touchpad
    this.view.zoom(factor, this.point(event));
  }

  _drag(/** @type {number} */ dx, /** @type {number} */ dy) {
    this.travelled += Math.abs(dx) + Math.abs(dy);
    if (this.travelled <= CLICK) return;
    this.view.root.dataset.dragging = "";
    this.view.move(dx, dy);
  }

  _pinch(
    /** @type {number} */ id,
    /** @type {{x: number, y: number}} */ last,
    /** @type {{x: number, y: number}} */ at,
  ) {
    const other = [...this.down].find(([one]) => one !== id)?.[1];
    if (!other) return;
    const far = (/** @type {{x: number, y: number}} */ one) =>
      Math.max(1, Math.hypot(one.x - other.x, one.y - other.y));
    this.travelled = Infinity; // no click
    this.view.zoom(far(at) / far(last), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
    this.view.move((at.x - last.x) / 2, (at.y - last.y) / 2);
  }
}
