/**
 * Draws masks for the viewport: each of its pixels looks up the texture of stacks, and then a colour. What that costs
 * depends on the viewport, not on the number of masks.
 */
/** @typedef {import("./viewport.js").Place} Place */

const TILE = 64; // pixels a side; the texture is read by columns, the picture written by rows
const LIGHT = [255, 255, 255];

/** A colour for the document. */
export const rgb = (/** @type {number[] | undefined} */ colour) => `rgb(${(colour ?? LIGHT).join(" ")})`;

/** A pixel of a canvas, as a number. */
const packed = (/** @type {number[]} */ [r, g, b], /** @type {number} */ alpha) =>
  ((Math.round(alpha * 255) << 24) | (b << 16) | (g << 8) | r) >>> 0;

/**
 * For each stack, its topmost visible mask plus 1; 0 if it has none.
 * @param {{lists: readonly ArrayLike<number>[]}} stacks
 * @param {ReadonlySet<number>} visible
 */
export function topmost(stacks, visible) {
  const tops = new Uint16Array(stacks.lists.length);
  stacks.lists.forEach((list, index) => {
    for (let i = 0; i < list.length; i++) {
      if (visible.has(list[i])) {
        tops[index] = list[i] + 1;
        return;
      }
    }
  });
  return tops;
}

/** The colours of masks by id, after an unused one, as pixels: of what is inside, and of edges. */
export function coloursOf(/** @type {Map<number, number[]>} */ colours, /** @type {string} */ style, /** @type {number} */ opacity) {
  const last = Math.max(-1, ...colours.keys());
  const inside = new Uint32Array(last + 2);
  const edges = new Uint32Array(last + 2);
  colours.forEach((colour, id) => {
    inside[id + 1] = style === "fill" ? packed(colour, opacity) : 0;
    edges[id + 1] = style === "fill" ? packed(LIGHT, Math.min(1, opacity * 1.4)) : packed(colour, opacity);
  });
  return { inside, edges };
}

/** The image's pixel, times `step`, of each pixel of a side of the viewport; -1 outside. */
function samples(/** @type {number} */ count, /** @type {number} */ start, /** @type {number} */ scale, /** @type {number} */ size, step = 1) {
  const found = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const pixel = Math.floor((i + 0.5 - start) / scale);
    found[i] = pixel >= 0 && pixel < size ? pixel * step : -1;
  }
  return found;
}

/** Buffers that fit a canvas, kept from one picture to the next. */
export class Painter {
  constructor() {
    this.labels = new Uint16Array(0);
    /** @type {ImageData | null} */
    this.picture = null;
  }

  /**
   * Draws into a canvas of device pixels. `place` is in device pixels, too; `reach` is how wide edges are.
   * @param {CanvasRenderingContext2D} context
   * @param {{ids: Uint32Array, width: number, height: number}} stacks
   * @param {Place} place
   * @param {Uint16Array} tops
   * @param {{inside: Uint32Array, edges: Uint32Array}} colours
   * @param {number} reach
   */
  paint(context, stacks, place, tops, colours, reach) {
    const { width, height } = context.canvas;
    if (!this.picture || this.picture.width !== width || this.picture.height !== height) {
      this.picture = new ImageData(width, height);
      this.labels = new Uint16Array(width * height);
    }
    this._look(stacks, place, tops, width, height);
    this._colour(colours, reach, width, height);
    context.putImageData(this.picture, 0, 0);
  }

  /** Which mask each pixel of the viewport shows. */
  _look(/** @type {any} */ stacks, /** @type {Place} */ place, /** @type {Uint16Array} */ tops, /** @type {number} */ width, /** @type {number} */ height) {
    const { ids } = stacks;
    const { labels } = this;
    const columns = samples(width, place.x, place.scale, stacks.width, stacks.height);
    const rows = samples(height, place.y, place.scale, stacks.height);
    for (let top = 0; top < height; top += TILE) {
      const bottom = Math.min(height, top + TILE);
      for (let left = 0; left < width; left += TILE) {
        const right = Math.min(width, left + TILE);
        for (let i = left; i < right; i++) {
          const column = columns[i];
          for (let j = top, at = top * width + i; j < bottom; j++, at += width) {
            labels[at] = column < 0 || rows[j] < 0 ? 0 : tops[ids[column + rows[j]]];
          }
        }
      }
    }
  }

  /** Colours of pixels by their masks; a pixel near one of another mask is an edge. */
  _colour(/** @type {any} */ { inside, edges }, /** @type {number} */ reach, /** @type {number} */ width, /** @type {number} */ height) {
    const { labels } = this;
    const pixels = new Uint32Array(/** @type {ImageData} */ (this.picture).data.buffer);
    const down = reach * width;
    pixels.fill(0);
    for (let j = 0; j < height; j++) {
      const hasUp = j >= reach;
      const hasDown = j < height - reach;
      for (let i = 0, at = j * width; i < width; i++, at++) {
        const label = labels[at];
        if (label === 0) continue;
        const isEdge =
          (i >= reach && labels[at - reach] !== label) ||
          (i < width - reach && labels[at + reach] !== label) ||
          (hasUp && labels[at - down] !== label) ||
          (hasDown && labels[at + down] !== label);
        pixels[at] = isEdge ? edges[label] : inside[label];
      }
    }
  }
}

/** Draws the boxes of masks; `place` is in device pixels. */
export function paintBoxes(
  /** @type {CanvasRenderingContext2D} */ context,
  /** @type {readonly any[]} */ masks,
  /** @type {Map<number, number[]>} */ colours,
  /** @type {Place} */ place,
  /** @type {number} */ opacity,
  /** @type {number} */ line,
) {
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.lineWidth = line;
  context.globalAlpha = opacity;
  for (const mask of masks) {
    const [x, y, w, h] = mask.bbox;
    context.strokeStyle = rgb(colours.get(mask.id));
    context.strokeRect(place.x + x * place.scale, place.y + y * place.scale, (w + 1) * place.scale, (h + 1) * place.scale);
  }
  context.globalAlpha = 1;
}
