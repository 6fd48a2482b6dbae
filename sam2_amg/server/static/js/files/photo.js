// @ts-check
/**
 * The pixels of a photograph on white, stretched to a size.
 * @param {CanvasImageSource} photo
 * @param {number} width
 * @param {number} height
 * @param {[number, number, number, number]} [box] x, y, width and height of the part that is wanted
 * @returns {ImageData}
 * @throws {Error} if the browser has no canvas of this size
 */
export function photoPixels(photo, width, height, [left, top, columns, rows] = [0, 0, width, height]) {
  const context = new OffscreenCanvas(columns, rows).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error(`This browser draws no picture of ${columns} x ${rows} pixels.`);
  context.fillStyle = "white";
  context.fillRect(0, 0, columns, rows);
  context.drawImage(photo, -left, -top, width, height);
  return context.getImageData(0, 0, columns, rows);
}
