// @ts-check
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
export function coloursOf(
  /** @type {Map<number, number[]>} */ colours,
  /** @type {string} */ style,
  /** @type {number} */ opacity,
) {
  const last = Math.max(-1, ...colours.keys());
  const inside = new Uint32Array(last + 2);
  const edges = new Uint32Array(last + 2);
  colours.forEach((colour, id) => {
    inside[id + 1] = style === "fill" ? packed(colour, opacity) : 0;
    edges[id + 1] = style === "fill" ? packed(LIGHT, Math.min(1, opacity * 1.4)) : packed(colour, opacity);
  });
  return { inside, edges };
}

/**
 * Where the viewport's pixels along a side fall in the image: those from `begin` to before `end`, at `at[i] * step`.
 * @param {number} count
 * @param {number} start
 * @param {number} scale
 * @param {number} size of the image
 * @param {number} step
 */
function samples(count, start, scale, size, step) {
  const at = new Int32Array(count);
  let begin = count;
  let end = 0;
  for (let i = 0; i < count; i++) {
    const pixel = Math.floor((i + 0.5 - start) / scale);
    if (pixel < 0 || pixel >= size) continue;
    at[i] = pixel * step;
    begin = Math.min(begin, i);
    end = i + 1;
  }
  return { at, begin, end };
}

/**
 * Paints, and keeps buffers and what it has looked up from one picture to the next. Buffers reach beyond the viewport
 * on all sides by the width of edges, so that its border is no edge.
 */
export class Painter {
  constructor() {
    this.stacksAt = new Uint32Array(0);
    this.labels = new Uint16Array(0);
    this.key = "";
    /** @type {any} */
    this.stacks = null;
    /** @type {ImageData | null} */
    this.picture = null;
  }

  /**
   * Draws into a canvas of device pixels. `place` is in device pixels, too; `reach` is how wide edges are.
   * @param {CanvasRenderingContext2D} context
   * @param {{ids: Uint32Array, lists: readonly any[], width: number, height: number}} stacks
   * @param {Place} place
   * @param {Uint16Array} tops
   * @param {{inside: Uint32Array, edges: Uint32Array}} colours
   * @param {number} reach
   */
  paint(context, stacks, place, tops, colours, reach) {
    const { width, height } = context.canvas;
    if (!this.picture || this.picture.width !== width || this.picture.height !== height) {
      this.picture = new ImageData(width, height);
    }
    const key = [width, height, place.scale, place.x, place.y, reach, stacks.lists.length].join(" ");
    if (stacks !== this.stacks || key !== this.key)
      this._look(stacks, place, width + 2 * reach, height + 2 * reach, reach);
    Object.assign(this, { stacks, key });
    const { stacksAt, labels } = this;
    for (let i = 0; i < labels.length; i++) labels[i] = tops[stacksAt[i]];
    this._colour(this.picture, colours, reach);
    context.putImageData(this.picture, 0, 0);
  }

  /** Reads which stack each pixel of the buffer has. */
  _look(
    /** @type {any} */ { ids, width, height },
    /** @type {Place} */ place,
    /** @type {number} */ across,
    /** @type {number} */ down,
    /** @type {number} */ reach,
  ) {
    if (this.labels.length !== across * down) {
      this.stacksAt = new Uint32Array(across * down);
      this.labels = new Uint16Array(across * down);
    } else this.stacksAt.fill(0);
    const columns = samples(across, place.x + reach, place.scale, width, height);
    const rows = samples(down, place.y + reach, place.scale, height, 1);
    for (let top = rows.begin; top < rows.end; top += TILE) {
      const bottom = Math.min(rows.end, top + TILE);
      for (let left = columns.begin; left < columns.end; left += TILE) {
        this._lookAtTile(ids, columns.at, rows.at, left, Math.min(columns.end, left + TILE), top, bottom, across);
      }
    }
  }

  _lookAtTile(
    /** @type {Uint32Array} */ ids,
    /** @type {Int32Array} */ columns,
    /** @type {Int32Array} */ rows,
    /** @type {number} */ left,
    /** @type {number} */ right,
    /** @type {number} */ top,
    /** @type {number} */ bottom,
    /** @type {number} */ across,
  ) {
    const { stacksAt } = this;
    for (let i = left; i < right; i++) {
      const column = columns[i];
      for (let j = top, at = top * across + i; j < bottom; j++, at += across) stacksAt[at] = ids[column + rows[j]];
    }
  }

  /** Colours pixels by their masks; one that is near a pixel of another mask is an edge. */
  _colour(/** @type {ImageData} */ picture, /** @type {any} */ { inside, edges }, /** @type {number} */ reach) {
    const { labels } = this;
    const { width, height } = picture;
    const across = width + 2 * reach;
    const down = reach * across;
    const pixels = new Uint32Array(picture.data.buffer);
    for (let j = 0; j < height; j++) {
      let at = (j + reach) * across + reach;
      for (let i = j * width; i < (j + 1) * width; i++, at++) {
        const label = labels[at];
        const isInside =
          labels[at - reach] === label &&
          labels[at + reach] === label &&
          labels[at - down] === label &&
          labels[at + down] === label;
        pixels[i] = isInside ? inside[label] : edges[label];
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
    context.strokeRect(
      place.x + x * place.scale,
      place.y + y * place.scale,
      (w + 1) * place.scale,
      (h + 1) * place.scale,
    );
  }
  context.globalAlpha = 1;
}
