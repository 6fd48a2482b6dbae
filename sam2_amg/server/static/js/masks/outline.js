// @ts-check
/**
 * The edges of a mask as rings of corners, exactly along the edges of its pixels.
 *
 * Corners come column line by column line. On each line, vertical edges join corners in turn from top to bottom; in
 * each row line, horizontal edges join them in turn from left to right. Walking along both in turn gives the rings.
 * Time and memory go with the number of runs, not of pixels.
 */

/**
 * The rings of a mask: x, y, x, y, ... of corners. Pixel (0, 0) spans 0 to 1. The last corner is joined to the first,
 * and is not equal to it. Outer rings turn clockwise as seen on a screen, holes the other way. Pixels that touch at a
 * corner alone are not joined there.
 * @param {Uint32Array} runs
 * @param {number} width
 * @param {number} height
 * @returns {Int32Array[]}
 */
export function ringsOf(runs, width, height) {
  const corners = cornersOf(changesOf(runs, height), width, height);
  return walk(corners, byRow(corners, height));
}

/**
 * Where columns enter the mask and leave it, in turn.
 * @param {Uint32Array} runs
 * @param {number} height
 * @returns {{column: Int32Array, y: Int32Array}} in the order of columns, then of y from 0 to `height`
 */
function changesOf(runs, height) {
  const count = countChanges(runs, height);
  const column = new Int32Array(count);
  const y = new Int32Array(count);
  let at = 0;
  forEachColumnRun(runs, height, (x, top, bottom) => {
    column[at] = column[at + 1] = x;
    y[at++] = top;
    y[at++] = bottom;
  });
  return { column, y };
}

/**
 * @param {Uint32Array} runs
 * @param {number} height
 * @returns {number}
 */
function countChanges(runs, height) {
  let count = 0;
  forEachColumnRun(runs, height, () => (count += 2));
  return count;
}

/**
 * @param {Uint32Array} runs
 * @param {number} height
 * @param {(x: number, top: number, bottom: number) => void} visit bottom is exclusive
 */
function forEachColumnRun(runs, height, visit) {
  let end = 0;
  for (let i = 0; i + 1 < runs.length; i += 2) {
    let start = end + runs[i];
    end = start + runs[i + 1];
    while (start < end) {
      const x = Math.floor(start / height);
      const stop = Math.min(end, (x + 1) * height);
      visit(x, start - x * height, stop - x * height);
      start = stop;
    }
  }
}

/**
 * @typedef {object} Corners in the order of x, then of y
 * @property {number} count
 * @property {Int32Array} x
 * @property {Int32Array} y
 * @property {Uint8Array} below whether the pixel to the right and below is the mask's
 * @property {Uint8Array} rising whether it is the first of two corners at one place, whose mask has the pixels top
 *   right and bottom left
 */

/**
 * @param {{column: Int32Array, y: Int32Array}} changes
 * @param {number} width
 * @param {number} height
 * @returns {Corners}
 */
function cornersOf({ column, y }, width, height) {
  const most = 2 * y.length;
  const corners = {
    count: 0,
    x: new Int32Array(most),
    y: new Int32Array(most),
    below: new Uint8Array(most),
    rising: new Uint8Array(most),
  };
  let left = 0; // the changes of the columns on both sides of a line are merged
  let right = 0;
  for (let line = y.length ? column[0] : width; line <= width; line++) {
    let inLeft = 0;
    let inRight = 0;
    for (;;) {
      const yLeft = left < y.length && column[left] === line - 1 ? y[left] : height + 1;
      const yRight = right < y.length && column[right] === line ? y[right] : height + 1;
      const at = Math.min(yLeft, yRight);
      if (at > height) break;
      if (yLeft === at) left++, (inLeft ^= 1);
      if (yRight === at) right++, (inRight ^= 1);
      if (yLeft !== yRight) addCorner(corners, line, at, inRight, 0);
      else if (inLeft !== inRight) {
        addCorner(corners, line, at, inRight, inLeft);
        addCorner(corners, line, at, inRight, 0);
      }
    }
  }
  return corners;
}

/**
 * @param {Corners} corners
 * @param {number} x
 * @param {number} y
 * @param {number} below
 * @param {number} rising
 */
function addCorner(corners, x, y, below, rising) {
  const at = corners.count++;
  corners.x[at] = x;
  corners.y[at] = y;
  corners.below[at] = below;
  corners.rising[at] = rising;
}

/**
 * The other end of each corner's horizontal edge.
 * @param {Corners} corners
 * @param {number} height
 * @returns {Int32Array}
 */
function byRow({ count, y, rising }, height) {
  const next = new Int32Array(height + 2); // counting sort by y, which keeps the order of x
  for (let i = 0; i < count; i++) next[y[i] + 1]++;
  for (let row = 0; row <= height; row++) next[row + 1] += next[row];
  const order = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const first = rising[i] ? i + 1 : i; // the upper of two corners at one place takes the edge on the right
    order[next[y[i]]++] = first;
    if (rising[i]) order[next[y[i]]++] = i++;
  }
  const mates = new Int32Array(count);
  for (let i = 0; i < count; i += 2) {
    mates[order[i]] = order[i + 1];
    mates[order[i + 1]] = order[i];
  }
  return mates;
}

/**
 * @param {Corners} corners
 * @param {Int32Array} sideways
 * @returns {Int32Array[]}
 */
function walk({ count, x, y, below }, sideways) {
  const seen = new Uint8Array(count);
  const rings = [];
  for (let start = 0; start < count; start++) {
    if (seen[start]) continue;
    const ring = [];
    let goSideways = below[start] === 1; // from the leftmost corner of a ring, the mask on the right-hand side
    for (let corner = start; !seen[corner]; goSideways = !goSideways) {
      seen[corner] = 1;
      ring.push(x[corner], y[corner]);
      corner = goSideways ? sideways[corner] : corner ^ 1;
    }
    rings.push(Int32Array.from(ring));
  }
  return rings;
}
