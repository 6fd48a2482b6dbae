// @ts-check
/**
 * Run lengths of masks, as COCO has them: column by column, background first.
 *
 * Runs are a Uint32Array of lengths that takes turns between background and mask. No run but the first is empty.
 * COCO's string is a number of 5 bits a character, low bits first; from the fourth run on it holds the difference to
 * the run before the last.
 */

const FIRST_CHARACTER = 48;
const MORE = 0x20;
const SIGN = 0x10;

/**
 * The runs of COCO's compressed string. Inverse of `encodeCounts`.
 * @param {string} text
 * @returns {Uint32Array}
 * @throws {RangeError} if the string ends within a number
 */
export function decodeCounts(text) {
  const runs = new Uint32Array(text.length);
  let count = 0;
  for (let at = 0; at < text.length; count++) {
    let value = 0;
    let shift = 0;
    let bits = MORE;
    while (bits & MORE) {
      if (at === text.length) throw new RangeError("The run lengths end within a number.");
      bits = text.charCodeAt(at++) - FIRST_CHARACTER;
      value |= (bits & 0x1f) << shift;
      shift += 5;
    }
    if (bits & SIGN && shift < 32) value |= -1 << shift;
    runs[count] = count > 2 ? value + runs[count - 2] : value;
  }
  return runs.slice(0, count);
}

/**
 * COCO's compressed string of runs, as pycocotools makes it.
 * @param {Uint32Array} runs
 * @returns {string}
 */
export function encodeCounts(runs) {
  const text = new Uint8Array(runs.length * 7);
  let length = 0;
  for (let i = 0; i < runs.length; i++) {
    let value = i > 2 ? runs[i] - runs[i - 2] : runs[i];
    let more = true;
    while (more) {
      const bits = value & 0x1f;
      value >>= 5;
      more = value !== (bits & SIGN ? -1 : 0);
      text[length++] = (more ? bits | MORE : bits) + FIRST_CHARACTER;
    }
  }
  return new TextDecoder().decode(text.subarray(0, length));
}

/**
 * The pixels of a mask.
 * @param {Uint32Array} runs
 * @returns {number}
 */
export function areaOf(runs) {
  let area = 0;
  for (let i = 1; i < runs.length; i += 2) area += runs[i];
  return area;
}

/**
 * The box of a mask, as COCO counts: one pixel has width and height 1. [0, 0, 0, 0] if the mask is empty.
 * @param {Uint32Array} runs
 * @param {number} height of the image
 * @returns {[number, number, number, number]} x, y, width, height
 */
export function boxOf(runs, height) {
  let [left, top, right, bottom] = [Infinity, height, 0, 0];
  let position = 0;
  for (let i = 0; i + 1 < runs.length; i += 2) {
    const start = position + runs[i];
    position = start + runs[i + 1];
    if (position === start) continue;
    const first = Math.floor(start / height);
    const last = Math.floor((position - 1) / height);
    left = Math.min(left, first);
    right = last + 1;
    top = first === last ? Math.min(top, start - first * height) : 0;
    bottom = first === last ? Math.max(bottom, position - last * height) : height;
  }
  return right ? [left, top, right - left, bottom - top] : [0, 0, 0, 0];
}

/**
 * The pixels of any of these masks, which are of one image.
 * @param {Uint32Array[]} masks
 * @returns {Uint32Array}
 */
export function union(masks) {
  if (masks.length < 2) return masks[0] ?? new Uint32Array();
  const half = masks.length >> 1;
  return unionOfTwo(union(masks.slice(0, half)), union(masks.slice(half)));
}

/**
 * @param {Uint32Array} a
 * @param {Uint32Array} b
 * @returns {Uint32Array}
 */
function unionOfTwo(a, b) {
  const runs = new Uint32Array(a.length + b.length);
  let count = 0;
  let from = 0;
  let inside = false;
  const end = forEachStretch(a, b, (start, inA, inB) => {
    if ((inA || inB) === inside) return;
    runs[count++] = start - from;
    from = start;
    inside = !inside;
  });
  if (end > from) runs[count++] = end - from;
  return runs.slice(0, count);
}

/**
 * How many pixels two masks of one image share.
 * @param {Uint32Array} a
 * @param {Uint32Array} b
 * @returns {number}
 */
export function intersectionArea(a, b) {
  let area = 0;
  let i = 0;
  let j = 0;
  let endA = a.length ? a[0] : 0; // where the run i of a ends; odd runs are the mask's
  let endB = b.length ? b[0] : 0;
  let start = 0;
  while (i < a.length && j < b.length) {
    const end = endA < endB ? endA : endB;
    if (i & j & 1) area += end - start;
    start = end;
    if (endA === end) endA += a[++i];
    if (endB === end) endB += b[++j];
  }
  return area;
}

/**
 * Calls back for each stretch of pixels in which neither of two masks changes.
 * @param {Uint32Array} a
 * @param {Uint32Array} b
 * @param {(start: number, inA: boolean, inB: boolean) => void} visit
 * @returns {number} where the longer of the two ends
 */
function forEachStretch(a, b, visit) {
  let i = 0;
  let j = 0;
  let endA = a.length ? a[0] : Infinity;
  let endB = b.length ? b[0] : Infinity;
  let start = 0;
  while (i < a.length || j < b.length) {
    const end = Math.min(endA, endB);
    if (end > start) visit(start, i < a.length && i % 2 === 1, j < b.length && j % 2 === 1);
    start = end;
    if (endA === end) endA = ++i < a.length ? end + a[i] : Infinity;
    if (endB === end) endB = ++j < b.length ? end + b[j] : Infinity;
  }
  return start;
}
