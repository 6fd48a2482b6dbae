// @ts-check
/** Records of the server -> masks, and the texture that tells which masks a pixel has. */
import { maskOf } from "./masks/mask.js";
import { MaskStacks } from "./masks/stacks.js";

/** @typedef {import("./masks/mask.js").Mask} Mask */

/** The masks of an answer. */
export const masksOf = (/** @type {any[]} */ records) => records.map((record, id) => maskOf(id, record));

/** The size that the masks have; null without masks. */
export function sizeOf(/** @type {any[]} */ records) {
  if (!records.length) return null;
  const [height, width] = records[0].segmentation.size;
  return { width, height };
}

/**
 * The stacks of masks and the pairs that overlap, made by a worker, and a colour for each mask.
 * @param {readonly Mask[]} masks
 * @param {{width: number, height: number}} size
 * @param {AbortSignal} signal
 * @returns {Promise<{stacks: MaskStacks, pairs: [number, number, number][], colours: Map<number, number[]>}>}
 */
export function sceneOf(masks, { width, height }, signal) {
  const worker = new Worker(new URL("./masks/worker.js", import.meta.url), { type: "module" });
  return new Promise((resolve, reject) => {
    const end = () => worker.terminate();
    signal.addEventListener("abort", () => {
      end();
      reject(new DOMException("cancelled", "AbortError"));
    });
    worker.onerror = (event) => {
      end();
      reject(new Error(event.message || "the masks could not be laid over the photograph"));
    };
    worker.onmessage = ({ data }) => {
      end();
      if (data.error) reject(new Error(data.error));
      else resolve({ stacks: MaskStacks.from(data.stacks), pairs: data.pairs, colours: data.colours });
    };
    worker.postMessage({ width, height, masks: masks.map(({ id, runs }) => ({ id, runs })) });
  });
}
