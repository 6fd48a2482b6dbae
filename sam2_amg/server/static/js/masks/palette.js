// @ts-check
/** @typedef {[number, number, number]} Colour red, green and blue from 0 to 255 */

/**
 * The colours of sam2_amg/answers/palette.py, which colour-blind eyes tell apart, too.
 * @type {Colour[]}
 */
export const PALETTE = [
  [255, 96, 144],
  [0, 72, 0],
  [96, 0, 120],
  [0, 255, 240],
  [216, 240, 0],
  [144, 0, 255],
  [0, 144, 0],
  [192, 144, 255],
  [144, 72, 96],
  [168, 192, 0],
  [72, 96, 144],
  [168, 0, 48],
  [255, 216, 144],
  [24, 24, 192],
  [168, 120, 96],
  [120, 24, 72],
  [168, 168, 96],
  [0, 192, 168],
  [168, 96, 255],
  [255, 24, 0],
];
const BEST = 8; // these are told apart more easily
const REACH = [1, 2, 4]; // pixels from one mask to the other; eyes do not see smaller gaps

/**
 * A colour of the palette; they come again after the last.
 * @param {number} index
 * @returns {Colour}
 */
export function colourOf(index) {
  return PALETTE[index % PALETTE.length];
}

/**
 * The pairs of labels that touch in a label map: those whose pixels are 1, 2 or 4 pixels apart in a row or a column.
 * @param {Uint16Array} labels [width * height], column by column; 0 is no label
 * @param {number} height
 * @returns {[number, number][]}
 */
export function touching(labels, height) {
  /** @type {Set<number>} */
  const found = new Set();
  for (const apart of REACH) {
    addPairs(found, labels, apart * height, height, height);
    addPairs(found, labels, apart, height, height - apart);
  }
  return [...found].map((pair) => [Math.floor(pair / 65536), pair % 65536]);
}

/**
 * @param {Set<number>} found
 * @param {Uint16Array} labels
 * @param {number} step from a pixel to the other
 * @param {number} height
 * @param {number} rows of each column that are compared
 */
function addPairs(found, labels, step, height, rows) {
  let last = -1;
  for (let column = 0; column + step < labels.length; column += height) {
    const end = Math.min(column + rows, labels.length - step);
    for (let i = column; i < end; i++) {
      const a = labels[i];
      const b = labels[i + step];
      if (a === b || a === 0 || b === 0) continue;
      const pair = a < b ? a * 65536 + b : b * 65536 + a;
      if (pair !== last) found.add((last = pair));
    }
  }
}

/**
 * An index of `PALETTE` for each node of a graph, so that connected nodes differ. Greedy, in smallest-last order, as
 * palette.py does it: a node gets the least used colour that none of its neighbours has, one of the best if there is
 * any.
 * @param {number} count of nodes
 * @param {[number, number][]} pairs of nodes that are connected
 * @returns {number[]}
 */
export function assignColours(count, pairs) {
  const neighbours = Array.from({ length: count }, () => /** @type {Set<number>} */ (new Set()));
  for (const [a, b] of pairs) {
    neighbours[a].add(b);
    neighbours[b].add(a);
  }
  const all = PALETTE.map((_, index) => index);
  /** @type {number[]} */
  const chosen = Array(count).fill(-1);
  const used = all.map(() => 0);
  for (const node of smallestFirst(neighbours).reverse()) {
    const taken = new Set([...neighbours[node]].map((other) => chosen[other]));
    const free = all.filter((index) => !taken.has(index));
    const allowed = free.length ? free : all;
    const best = allowed.filter((index) => index < BEST);
    chosen[node] = (best.length ? best : allowed).reduce((a, b) => (used[b] < used[a] ? b : a));
    used[chosen[node]]++;
  }
  return chosen;
}

/**
 * The nodes in the order in which they are taken from the graph: always the one with the fewest neighbours left, of
 * equal ones the first.
 * @param {Set<number>[]} neighbours
 * @returns {number[]}
 */
function smallestFirst(neighbours) {
  const degrees = neighbours.map((others) => others.size);
  const left = new Set(neighbours.keys());
  const order = [];
  while (left.size) {
    let node = -1;
    for (const other of left) if (node < 0 || degrees[other] < degrees[node]) node = other;
    left.delete(node);
    order.push(node);
    for (const other of neighbours[node]) degrees[other]--;
  }
  return order;
}
