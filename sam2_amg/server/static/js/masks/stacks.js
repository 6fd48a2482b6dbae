// @ts-check
import { areaOf } from "./rle.js";

/** @type {ReadonlyArray<number>} */
const NONE = Object.freeze([]);

/**
 * Which masks lie at each pixel.
 *
 * `ids` is a texture, a Uint32Array [width * height] column by column, as run lengths are. Its values are indices of
 * `lists`. A list has the ids of masks that share pixels: the smallest mask first, of equal ones that of the greater
 * id. `lists[0]` is empty. A list is never changed, and an index always means the same list.
 */
export class MaskStacks {
  /**
   * @param {number} width
   * @param {number} height
   */
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.ids = new Uint32Array(width * height);
    /** @type {ReadonlyArray<number>[]} */
    this.lists = [NONE];
    /** @type {Map<number, number>} */
    this.areas = new Map();
  }

  /**
   * Adds a mask. Its id must be new.
   * @param {number} id
   * @param {Uint32Array} runs
   * @param {number} [area] pixels
   */
  add(id, runs, area = areaOf(runs)) {
    this.areas.set(id, area);
    const after = new Uint32Array(this.lists.length); // the list that takes the place of a list; 0 if not made yet
    let end = 0;
    for (let i = 0; i + 1 < runs.length; i += 2) {
      const start = end + runs[i];
      end = start + runs[i + 1];
      this._addRun(id, start, end, after);
    }
  }

  /**
   * @param {number} id
   * @param {number} start
   * @param {number} end exclusive
   * @param {Uint32Array} after
   */
  _addRun(id, start, end, after) {
    const ids = this.ids;
    let position = start;
    while (position < end) {
      const from = ids[position];
      const to = after[from] || (after[from] = this._listWith(from, id));
      do ids[position++] = to;
      while (position < end && ids[position] === from);
    }
  }

  /**
   * @param {number} list index of a list
   * @param {number} id
   * @returns {number} index of the new list that has the id, too
   */
  _listWith(list, id) {
    const old = this.lists[list];
    const areaFor = (/** @type {number} */ one) => this.areas.get(one) ?? 0;
    const above = (/** @type {number} */ other) => {
      const difference = areaFor(other) - areaFor(id);
      return difference < 0 || (difference === 0 && other > id);
    };
    const below = old.findIndex((other) => !above(other));
    const at = below < 0 ? old.length : below;
    return this.lists.push([...old.slice(0, at), id, ...old.slice(at)]) - 1;
  }

  /**
   * The ids of the masks at a pixel, the smallest mask first. Empty outside the image.
   * @param {number} x
   * @param {number} y
   * @returns {ReadonlyArray<number>}
   */
  at(x, y) {
    const column = Math.floor(x);
    const row = Math.floor(y);
    if (!(column >= 0 && row >= 0 && column < this.width && row < this.height)) return NONE;
    return this.lists[this.ids[column * this.height + row]];
  }

  /**
   * What `postMessage` may carry, for `from` on the other side.
   * @returns {StacksData}
   */
  data() {
    const { width, height, ids, lists, areas } = this;
    return { width, height, ids, lists, areas };
  }

  /**
   * What `postMessage` moves instead of copying it. These stacks are of no use then.
   * @returns {Transferable[]}
   */
  transferables() {
    return [this.ids.buffer];
  }

  /**
   * @param {StacksData} data
   * @returns {MaskStacks}
   */
  static from(data) {
    return Object.assign(new MaskStacks(0, 0), data);
  }
}

/**
 * @typedef {object} StacksData
 * @property {number} width
 * @property {number} height
 * @property {Uint32Array} ids
 * @property {ReadonlyArray<number>[]} lists
 * @property {Map<number, number>} areas by id
 */
