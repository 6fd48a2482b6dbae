// @ts-check
import { boxOf } from "../masks/rle.js";
import { segmentationOf } from "./records.js";

/** @typedef {import("../masks/mask.js").Mask} Mask */

const IMAGE_ID = 1;
const UNNAMED = "object";

/**
 * A document of COCO's object detection format, as `format=coco` answers it. Each name of a mask is a category; masks
 * without one are of the category "object".
 * @param {{name: string, width: number, height: number}} image
 * @param {Mask[]} masks
 * @returns {object}
 */
export function cocoDocument({ name, width, height }, masks) {
  const names = [...new Set([UNNAMED, ...masks.map(nameOf)])];
  return {
    info: { description: "Masks of SAM 2.1's automatic mask generator" },
    licenses: [],
    images: [{ id: IMAGE_ID, file_name: name, width, height }],
    categories: names.map((each, index) => ({ id: index + 1, name: each, supercategory: "" })),
    annotations: masks.map((mask, index) => annotationOf(mask, index + 1, names.indexOf(nameOf(mask)) + 1, height)),
  };
}

/**
 * @param {Mask} mask
 * @returns {string}
 */
function nameOf(mask) {
  return mask.name || UNNAMED;
}

/**
 * @param {Mask} mask
 * @param {number} id
 * @param {number} category
 * @param {number} height of the image
 * @returns {object}
 */
function annotationOf(mask, id, category, height) {
  const { record } = mask;
  return {
    id,
    image_id: IMAGE_ID,
    category_id: category,
    segmentation: segmentationOf(mask),
    area: record.area,
    bbox: boxOf(mask.runs, height), // the record's is sam2's, in which one pixel has width 0
    iscrowd: 0,
    predicted_iou: record.predicted_iou,
    stability_score: record.stability_score,
    point_coords: record.point_coords,
    crop_box: record.crop_box,
  };
}
