// @ts-check
/** A file -> what is shown of it. */

/**
 * The photograph, upright; null if the browser cannot read the file.
 * @param {Blob} file
 * @returns {Promise<ImageBitmap | null>}
 */
export async function bitmapOf(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

/**
 * What the state knows of a photograph.
 * @param {File} file
 * @param {ImageBitmap | null} bitmap
 */
export function imageOf(file, bitmap) {
  const { width, height } = bitmap ?? { width: 1600, height: 1200 }; // until the masks tell
  return Object.freeze({ name: file.name || "photograph", file, bitmap, width, height });
}

/** The same in the size of the masks. A photograph of another size is stretched to it. */
export function withSize(/** @type {any} */ image, /** @type {{width: number, height: number} | null} */ size) {
  if (!size || (size.width === image.width && size.height === image.height)) return image;
  return Object.freeze({ ...image, ...size });
}

/** The name without its ending, for files that are made of it. */
export const stemOf = (/** @type {string} */ name) => name.replace(/\.[^.]{1,5}$/, "") || "photograph";
