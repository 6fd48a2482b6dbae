// @ts-check
/** The outlines of masks that are lit or selected. */
import { ringsOf } from "./masks/outline.js";

const MOST_PATHS = 400;
const DARK = { width: 5, colour: "rgb(0 0 0 / 0.75)" };
const LIGHT = { width: 2.2, colour: "#fff" };
const INSIDE = { lit: "rgb(255 255 255 / 0.22)", selected: "rgb(255 255 255 / 0.1)" };

export class Outlines {
  constructor() {
    /** @type {Map<number, Path2D>} by the id of a mask */
    this.paths = new Map();
  }

  /** Forgets the outlines of a photograph. */
  clear() {
    this.paths.clear();
  }

  /**
   * Draws a mask's outline in pixels of the image.
   * @param {CanvasRenderingContext2D} context
   * @param {import("./masks/mask.js").Mask} mask
   * @param {{width: number, height: number}} size of the image
   * @param {number} line what a CSS pixel measures
   * @param {boolean} isLit
   */
  draw(context, mask, size, line, isLit) {
    const path = this._pathOf(mask, size);
    context.lineJoin = "round";
    context.fillStyle = isLit ? INSIDE.lit : INSIDE.selected;
    context.fill(path, "evenodd");
    for (const { width, colour } of [DARK, LIGHT]) {
      context.strokeStyle = colour;
      context.lineWidth = width * line;
      context.stroke(path);
    }
  }

  /**
   * @param {import("./masks/mask.js").Mask} mask
   * @param {{width: number, height: number}} size
   */
  _pathOf({ id, runs }, { width, height }) {
    const known = this.paths.get(id);
    if (known) return known;
    const path = new Path2D();
    for (const ring of ringsOf(runs, width, height)) {
      path.moveTo(ring[0], ring[1]);
      for (let i = 2; i < ring.length; i += 2) path.lineTo(ring[i], ring[i + 1]);
      path.closePath();
    }
    if (this.paths.size >= MOST_PATHS) this.paths.clear();
    this.paths.set(id, path);
    return path;
  }
}
