// @ts-check
import { crc32, packed } from "./bytes.js";

const VERSION = 20;
const UTF8_NAMES = 0x800;
const STORED = 0;
const MOST_FILES = 65535;
const MOST_BYTES = 0xffffffff;

/**
 * A zip of files, which are stored as they are.
 * @param {{name: string, blob: Blob}[]} files names must differ
 * @param {Date} [date] of all files
 * @returns {Promise<Blob>}
 * @throws {RangeError} for more than 65535 files or 4 GiB
 */
export async function zip(files, date = new Date()) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, blob } of files) {
    const path = new TextEncoder().encode(name);
    const fields = fieldsOf(path, crc32(new Uint8Array(await blob.arrayBuffer())), blob.size, date);
    const head = [packed([[0x04034b50, 4], ...fields], true), path];
    directory.push(packed(entry(fields, offset), true), path);
    parts.push(...head, blob);
    offset += sizeOf(head) + blob.size;
  }
  const size = sizeOf(directory);
  if (files.length > MOST_FILES || offset + size > MOST_BYTES) {
    throw new RangeError(`A zip holds ${MOST_FILES} files and 4 GiB. Keep fewer masks.`);
  }
  const counts = /** @type {[number, 2][]} */ ([[files.length, 2], [files.length, 2]]);
  const end = packed([[0x06054b50, 4], [0, 2], [0, 2], ...counts, [size, 4], [offset, 4], [0, 2]], true);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** @typedef {[number, 1 | 2 | 4]} Field */

/**
 * What a file's own header and the directory's say alike.
 * @param {Uint8Array} path
 * @param {number} crc
 * @param {number} size
 * @param {Date} date
 * @returns {Field[]}
 */
function fieldsOf(path, crc, size, date) {
  const time = (date.getHours() << 11) | (date.getMinutes() << 5) | (date.getSeconds() >> 1);
  const day = ((date.getFullYear() - 1980) << 9) | ((date.getMonth() + 1) << 5) | date.getDate();
  return [
    [VERSION, 2],
    [UTF8_NAMES, 2],
    [STORED, 2],
    [time, 2],
    [day, 2],
    [crc, 4],
    [size, 4],
    [size, 4],
    [path.length, 2],
    [0, 2],
  ];
}

/**
 * The directory's entry of a file, without its name.
 * @param {Field[]} fields
 * @param {number} offset of the file's own header
 * @returns {Field[]}
 */
function entry(fields, offset) {
  return [[0x02014b50, 4], [VERSION, 2], ...fields, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]];
}

/**
 * @param {Uint8Array[]} parts
 * @returns {number}
 */
function sizeOf(parts) {
  return parts.reduce((sum, part) => sum + part.length, 0);
}
