// @ts-check
/** @typedef {import("../masks/filters.js").Thresholds} Thresholds */

const PICTURES = ["labelmap", "png"];

/**
 * The line for a shell that gets the same answer. The header of a server with a key says KEY in the key's place.
 * @param {object} asked
 * @param {string} asked.origin such as http://127.0.0.1:5000
 * @param {string} asked.format of the server: "coco", "records", "labelmap" or "png"
 * @param {string} asked.name of the photograph's file
 * @param {Record<string, unknown>} [asked.search] parameters of the request
 * @param {Thresholds} [asked.filters] as strict as those of `search`, or stricter
 * @param {boolean} [asked.needsKey]
 * @returns {string}
 */
export function curlLine({ origin, format, name, search = {}, filters = {}, needsKey = false }) {
  const isPicture = PICTURES.includes(format);
  const query = new URLSearchParams({ format, ...(!isPicture && { counts: "compressed" }) });
  for (const [key, value] of Object.entries({ ...search, ...parametersOf(filters) })) {
    if (value !== null && value !== undefined) query.set(key, asText(value));
  }
  return [
    "curl",
    ...(needsKey ? ["-H", quoted("Authorization: Bearer KEY")] : []),
    "-F",
    quoted(`image=@${pathOf(name)}`),
    quoted(`${origin}/segment?${query}`),
    "-o",
    `masks.${isPicture ? "png" : "json"}`,
  ].join(" ");
}

/**
 * The server's parameters that filter as thresholds do. Those that filter nothing are left out.
 * @param {Thresholds} thresholds
 * @returns {Record<string, number>}
 */
function parametersOf({ minIou = 0, minStability = 0, minArea = 0, maxOverlap = 1 }) {
  return {
    ...(minIou > 0 && { pred_iou_thresh: minIou }),
    ...(minStability > 0 && { stability_score_thresh: minStability }),
    ...(minArea > 0 && { min_mask_area: Math.ceil(minArea) }),
    ...(maxOverlap < 1 && { mask_nms_thresh: maxOverlap }),
  };
}

/**
 * @param {unknown} value
 * @returns {string}
 */
function asText(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * A word for a POSIX shell.
 * @param {string} text
 * @returns {string}
 */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * The path of a file for curl's -F, in which commas and semicolons end a path that is not quoted, and - is standard
 * input. Control characters, which a line cannot have, become question marks.
 * @param {string} name
 * @returns {string}
 */
function pathOf(name) {
  const path = (name === "-" ? "./-" : name).replace(/\p{Cc}/gu, "?");
  return /[,;"\\]|^\s|\s$/.test(path) ? `"${path.replace(/["\\]/g, "\\$&")}"` : path;
}
