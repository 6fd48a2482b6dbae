// @ts-check
/**
 * Where the photograph lies in the viewport: frozen {scale, x, y}. An image pixel (i, j) has its top left corner at
 * (x + i * scale, y + j * scale), in CSS pixels of the viewport.
 *
 * @typedef {{scale: number, x: number, y: number}} Place
 * @typedef {{width: number, height: number}} Size
 */

const LARGEST = 40; // CSS pixels an image pixel
const LEAST_OF_FIT = 0.5;
const LEAST_SEEN = 48; // CSS pixels of the photograph that stay in the viewport

/**
 * The whole photograph, in the middle of what the viewport has inside its margins.
 * @param {Size} image
 * @param {Size} room
 * @param {{top: number, bottom: number, side: number}} margins
 * @returns {Place}
 */
export function fit(image, room, margins) {
  const width = Math.max(1, room.width - 2 * margins.side);
  const height = Math.max(1, room.height - margins.top - margins.bottom);
  const scale = Math.min(width / image.width, height / image.height, LARGEST);
  return Object.freeze({
    scale,
    x: (room.width - image.width * scale) / 2,
    y: margins.top + (height - image.height * scale) / 2,
  });
}

/**
 * Zooms by a factor; what is at (x, y) stays there.
 * @param {Place} place
 * @param {number} factor
 * @param {{x: number, y: number}} at
 * @param {number} fitted the scale of `fit`
 * @returns {Place}
 */
export function zoomed(place, factor, at, fitted) {
  const least = Math.min(fitted * LEAST_OF_FIT, 1);
  const scale = Math.min(LARGEST, Math.max(least, place.scale * factor));
  const ratio = scale / place.scale;
  return Object.freeze({ scale, x: at.x - (at.x - place.x) * ratio, y: at.y - (at.y - place.y) * ratio });
}

/**
 * Moved, but not out of sight.
 * @param {Place} place
 * @param {number} dx
 * @param {number} dy
 * @param {Size} image
 * @param {Size} room
 * @returns {Place}
 */
export function moved(place, dx, dy, image, room) {
  const within = (/** @type {number} */ at, /** @type {number} */ length, /** @type {number} */ size) =>
    Math.min(size - LEAST_SEEN, Math.max(LEAST_SEEN - length, at));
  return Object.freeze({
    scale: place.scale,
    x: within(place.x + dx, image.width * place.scale, room.width),
    y: within(place.y + dy, image.height * place.scale, room.height),
  });
}

/** The image's pixel at a point of the viewport; it may lie outside the image. */
export function pixelAt(/** @type {Place} */ place, /** @type {number} */ x, /** @type {number} */ y) {
  return { x: Math.floor((x - place.x) / place.scale), y: Math.floor((y - place.y) / place.scale) };
}
