// @ts-check
/** The viewport: three canvases that lie on each other, redrawn when what they show has changed. */
import { Outlines } from "./outlines.js";
import { coloursOf, Painter, paintBoxes, topmost } from "./painter.js";
import { fit, moved, zoomed } from "./viewport.js";

/** @typedef {import("./store.js").State} State @typedef {import("./viewport.js").Place} Place */

const LARGEST_RATIO = 2; // device pixels a CSS pixel
const SHARP = 3; // CSS pixels an image pixel from which on pixels are shown as squares
const MARGINS = { top: 58, bottom: 84, side: 20 };
const NARROW = { top: 56, bottom: 60, side: 8 };

export class View {
  /**
   * @param {{root: HTMLElement, photo: HTMLCanvasElement, masks: HTMLCanvasElement, lit: HTMLCanvasElement}} places
   * @param {import("./store.js").Store} store
   */
  constructor({ root, photo, masks, lit }, store) {
    this.root = root;
    this.canvases = { photo, masks, lit };
    this.store = store;
    this.painter = new Painter();
    this.room = { width: 1, height: 1 };
    this.ratio = 1;
    /** @type {Place} */
    this.place = Object.freeze({ scale: 1, x: 0, y: 0 });
    this.isFitted = true;
    /** @type {Set<string>} */
    this.stale = new Set();
    this.outlines = new Outlines();
    /** @type {(() => void)[]} */
    this.onPlace = [];
    new ResizeObserver(() => this.resize()).observe(root);
    store.listen((state, before) => this.follow(state, before));
  }

  /** Redraws what a change of the state concerns. */
  follow(/** @type {State} */ state, /** @type {State} */ before) {
    if (state.image !== before.image) this._newImage(state, before);
    if (state.scene !== before.scene) this.outlines.clear();
    const differs = (/** @type {(keyof State)[]} */ ...names) => names.some((name) => state[name] !== before[name]);
    if (differs("scene", "visible")) this.tops = state.scene && topmost(state.scene.stacks, state.visible);
    if (differs("scene", "visible", "style", "opacity", "image")) this.draw("masks");
    if (differs("lit", "selected", "image", "scene", "masks")) this.draw("lit");
  }

  _newImage(/** @type {State} */ state, /** @type {State} */ before) {
    const { image } = state;
    const last = before.image;
    if (!image || !last || image.width !== last.width || image.height !== last.height || image.file !== last.file)
      this.fit();
    this.draw("photo");
  }

  /** Has layers drawn with the next frame. */
  draw(/** @type {string[]} */ ...layers) {
    if (!this.stale.size) requestAnimationFrame(() => this._redraw());
    for (const layer of layers) this.stale.add(layer);
  }

  drawAll() {
    this.draw("photo", "masks", "lit");
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.root;
    this.ratio = Math.min(LARGEST_RATIO, window.devicePixelRatio || 1);
    this.room = { width, height };
    for (const canvas of Object.values(this.canvases)) {
      canvas.width = Math.max(1, Math.round(width * this.ratio));
      canvas.height = Math.max(1, Math.round(height * this.ratio));
    }
    if (this.isFitted) this.fit();
    else this.move(0, 0);
    this._redraw(["photo", "masks", "lit"]); // at once: a canvas is empty after its size has changed
  }

  get _fitted() {
    const { image } = this.store.state;
    const margins = this.room.width < 600 ? NARROW : MARGINS;
    return image ? fit(image, this.room, margins) : this.place;
  }

  fit() {
    this._goTo(this._fitted, true);
  }

  /** Zooms by a factor at a point of the viewport; at its middle without one. */
  zoom(/** @type {number} */ factor, at = { x: this.room.width / 2, y: this.room.height / 2 }) {
    const { image } = this.store.state;
    if (!image) return;
    const place = zoomed(this.place, factor, at, this._fitted.scale);
    this._goTo(moved(place, 0, 0, image, this.room));
  }

  /** Moves the photograph by CSS pixels. */
  move(/** @type {number} */ dx, /** @type {number} */ dy) {
    const { image } = this.store.state;
    if (image) this._goTo(moved(this.place, dx, dy, image, this.room));
  }

  /** Moves the photograph so that the middle of a box (x, y, width, height in the image) is in sight. */
  reveal(/** @type {number[]} */ [x, y, width, height]) {
    const { scale, x: left, y: top } = this.place;
    const at = { x: left + (x + width / 2) * scale, y: top + (y + height / 2) * scale };
    const isSeen = at.x >= 0 && at.y >= 0 && at.x < this.room.width && at.y < this.room.height;
    if (!isSeen) this.move(this.room.width / 2 - at.x, this.room.height / 2 - at.y);
  }

  _goTo(/** @type {Place} */ place, isFitted = false) {
    this.place = place;
    this.isFitted = isFitted;
    this.drawAll();
    for (const listener of this.onPlace) listener();
  }

  /** Where the photograph lies, in device pixels. */
  get _devicePlace() {
    const { scale, x, y } = this.place;
    return { scale: scale * this.ratio, x: x * this.ratio, y: y * this.ratio };
  }

  _redraw(layers = [...this.stale]) {
    this.stale.clear();
    const { state } = this.store;
    for (const layer of layers) {
      if (layer === "photo") this._drawPhoto(state);
      if (layer === "masks") this._drawMasks(state);
      if (layer === "lit") this._drawLit(state);
    }
  }

  _cleared(/** @type {HTMLCanvasElement} */ canvas) {
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    return context;
  }

  _drawPhoto(/** @type {State} */ { image }) {
    const context = this._cleared(this.canvases.photo);
    if (!image) return;
    const { scale, x, y } = this._devicePlace;
    const area = /** @type {const} */ ([x, y, image.width * scale, image.height * scale]);
    context.imageSmoothingEnabled = this.place.scale < SHARP;
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#80807c";
    if (image.bitmap) context.drawImage(image.bitmap, ...area);
    else context.fillRect(...area);
  }

  _drawMasks(/** @type {State} */ { scene, style, opacity, masks, visible }) {
    const context = this._cleared(this.canvases.masks);
    if (!scene || !this.tops) return;
    const line = Math.max(1, Math.round(this.ratio));
    if (style === "boxes") {
      const seen = masks.filter((mask) => visible.has(mask.id));
      paintBoxes(context, seen, scene.colours, this._devicePlace, opacity.boxes, 2 * line);
      return;
    }
    const colours = coloursOf(scene.colours, style, opacity[style]);
    this.painter.paint(
      context,
      scene.stacks,
      this._devicePlace,
      this.tops,
      colours,
      style === "fill" ? line : 2 * line,
    );
  }

  _drawLit(/** @type {State} */ { lit, selected, image, masks }) {
    const context = this._cleared(this.canvases.lit);
    if (!image) return;
    const { scale, x, y } = this._devicePlace;
    context.setTransform(scale, 0, 0, scale, x, y);
    const line = this.ratio / scale;
    for (const mask of masks) {
      if (mask.id === lit || selected.includes(mask.id))
        this.outlines.draw(context, mask, image, line, mask.id === lit);
    }
  }
}
