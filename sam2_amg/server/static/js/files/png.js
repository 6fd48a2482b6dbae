// @ts-check
import { crc32, packed } from "./bytes.js";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const GREY = { bits: 16, kind: 0 };
const RGBA = { bits: 8, kind: 6 };
const UP = 2; // the filter that stores the difference to the row above

/**
 * The file of a 16-bit grey PNG.
 * @param {number} width
 * @param {number} height
 * @param {Uint16Array} pixels [width * height], column by column
 * @returns {Promise<Blob>}
 */
export async function greyPng(width, height, pixels) {
  return png(width, height, GREY, filteredRows(width, height, pixels));
}

/**
 * The file of a PNG with transparency. A canvas could make it, too, but waits for the browser to be idle.
 * @param {ImageData} pixels
 * @returns {Promise<Blob>}
 */
export async function colourPng({ width, height, data }) {
  const stride = 4 * width;
  const rows = new Uint8Array(height * (1 + stride));
  for (let y = 0; y < height; y++) {
    const at = y * (1 + stride) + 1;
    rows[at - 1] = UP;
    for (let i = 0; i < stride; i++) rows[at + i] = data[y * stride + i] - (y ? data[(y - 1) * stride + i] : 0);
  }
  return png(width, height, RGBA, rows);
}

/**
 * @param {number} width
 * @param {number} height
 * @param {{bits: number, kind: number}} colour
 * @param {Uint8Array<ArrayBuffer>} rows filtered
 * @returns {Promise<Blob>}
 */
async function png(width, height, { bits, kind }, rows) {
  const header = packed([[width, 4], [height, 4], [bits, 1], [kind, 1], [0, 1], [0, 1], [0, 1]], false);
  const chunks = [chunk("IHDR", header), chunk("IDAT", await deflated(rows)), chunk("IEND", new Uint8Array())];
  return new Blob([SIGNATURE, ...chunks.flat()], { type: "image/png" });
}

/**
 * Rows of bytes, the high byte of a pixel first, as the filter `UP` makes them.
 * @param {number} width
 * @param {number} height
 * @param {Uint16Array} pixels column by column
 * @returns {Uint8Array<ArrayBuffer>}
 */
function filteredRows(width, height, pixels) {
  const stride = 1 + 2 * width;
  const rows = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) rows[y * stride] = UP;
  for (let x = 0; x < width; x++) {
    let above = 0;
    let at = 1 + 2 * x;
    for (let i = x * height; i < (x + 1) * height; i++) {
      const pixel = pixels[i];
      rows[at] = (pixel >> 8) - (above >> 8);
      rows[at + 1] = pixel - above;
      above = pixel;
      at += stride;
    }
  }
  return rows;
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<Uint8Array<ArrayBuffer>>} in the format of zlib
 */
async function deflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} data
 * @returns {Uint8Array<ArrayBuffer>[]}
 */
function chunk(name, data) {
  const kind = new TextEncoder().encode(name);
  return [packed([[data.length, 4]], false), kind, data, packed([[crc32(kind, data), 4]], false)];
}
