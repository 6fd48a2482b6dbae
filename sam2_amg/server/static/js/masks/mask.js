// @ts-check
import { areaOf, boxOf, decodeCounts, encodeCounts, union } from "./rle.js";

/**
 * What the server says of a mask (docs/formats.md, "records").
 * @typedef {object} MaskRecord
 * @property {{size: [number, number], counts: string | number[]}} segmentation size is [height, width]
 * @property {number} area
 * @property {number[]} bbox x, y, width, height; one pixel has width and height 0, as in sam2
 * @property {number} predicted_iou
 * @property {number[][]} point_coords
 * @property {number} stability_score
 * @property {number[]} crop_box x, y, width, height
 */

/**
 * A mask as the page keeps it. It is frozen: a change makes another mask of the same id.
 * @typedef {object} Mask
 * @property {number} id
 * @property {Uint32Array} runs
 * @property {number} area
 * @property {number[]} bbox that of the record
 * @property {number} predictedIou
 * @property {number} stability
 * @property {MaskRecord} record
 * @property {string} name
 * @property {boolean} kept
 * @property {boolean} hidden
 * @property {"server" | "carried" | "merged"} origin of the server's answer, kept from an answer before, or made by hand
 */

/**
 * The mask of a record.
 * @param {number} id
 * @param {MaskRecord} record
 * @returns {Readonly<Mask>}
 */
export function maskOf(id, record) {
  const { counts } = record.segmentation;
  return Object.freeze({
    id,
    runs: typeof counts === "string" ? decodeCounts(counts) : Uint32Array.from(counts),
    area: record.area,
    bbox: record.bbox,
    predictedIou: record.predicted_iou,
    stability: record.stability_score,
    record,
    name: "",
    kept: false,
    hidden: false,
    origin: "server",
  });
}

/**
 * One mask of the pixels of several. It has the least of their scores, all of their points, the box around their
 * crops, and the first of their names.
 * @param {number} id
 * @param {Mask[]} masks one or more
 * @returns {Readonly<Mask>}
 */
export function mergedMask(id, masks) {
  const records = masks.map((mask) => mask.record);
  const runs = union(masks.map((mask) => mask.runs));
  const { size } = records[0].segmentation;
  const [x, y, width, height] = boxOf(runs, size[0]);
  const record = {
    segmentation: { size, counts: encodeCounts(runs) },
    area: areaOf(runs),
    bbox: [x, y, Math.max(0, width - 1), Math.max(0, height - 1)],
    predicted_iou: Math.min(...masks.map((mask) => mask.predictedIou)),
    point_coords: records.flatMap((each) => each.point_coords),
    stability_score: Math.min(...masks.map((mask) => mask.stability)),
    crop_box: boxAround(records.map((each) => each.crop_box)),
  };
  const name = masks.find((mask) => mask.name)?.name ?? "";
  return Object.freeze({ ...maskOf(id, record), name, origin: "merged" });
}

/**
 * The masks in the order of records (docs/formats.md): those of the server as they come, each other one before the first
 * of a lower predicted IoU, or of a larger crop.
 * @param {Mask[]} masks
 * @returns {Mask[]}
 */
export function inOrder(masks) {
  const order = masks.filter((mask) => mask.origin === "server");
  for (const mask of masks.filter((one) => one.origin !== "server")) {
    const at = order.findIndex((other) => comesBefore(mask, other));
    order.splice(at < 0 ? order.length : at, 0, mask);
  }
  return order;
}

/**
 * @param {Mask} a
 * @param {Mask} b
 * @returns {boolean}
 */
function comesBefore(a, b) {
  const sizeOf = (/** @type {Mask} */ { record: { crop_box: box } }) => box[2] * box[3];
  return sizeOf(a) === sizeOf(b) ? a.predictedIou > b.predictedIou : sizeOf(a) < sizeOf(b);
}

/**
 * @param {number[][]} boxes x, y, width, height
 * @returns {number[]} the box around them
 */
function boxAround(boxes) {
  const x = Math.min(...boxes.map((box) => box[0]));
  const y = Math.min(...boxes.map((box) => box[1]));
  const right = Math.max(...boxes.map((box) => box[0] + box[2]));
  const bottom = Math.max(...boxes.map((box) => box[1] + box[3]));
  return [x, y, right - x, bottom - y];
}
