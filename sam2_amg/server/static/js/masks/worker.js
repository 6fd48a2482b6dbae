// @ts-check
/**
 * A module worker that prepares masks for the page. It is sent {width, height, masks: [{id, runs}, ...]}, the masks in
 * the server's order, and sends {stacks, pairs, colours}: data for `MaskStacks.from`, `overlappingPairs`, and
 * `coloursOf`. What it cannot do it sends as {error: a sentence}.
 */
import { coloursOf } from "./labels.js";
import { overlappingPairs } from "./pairs.js";
import { areaOf } from "./rle.js";
import { MaskStacks } from "./stacks.js";

/**
 * @param {{width: number, height: number, masks: {id: number, runs: Uint32Array}[]}} asked
 * @returns {{reply: object, moved: Transferable[]}}
 */
function prepare({ width, height, masks }) {
  const stacks = new MaskStacks(width, height);
  const measured = masks.map(({ id, runs }) => ({ id, runs, area: areaOf(runs) }));
  for (const { id, runs, area } of measured) stacks.add(id, runs, area);
  const colours = coloursOf(width, height, measured);
  const pairs = overlappingPairs(masks, height);
  return { reply: { stacks: stacks.data(), pairs, colours }, moved: stacks.transferables() };
}

self.addEventListener("message", ({ data }) => {
  try {
    const { reply, moved } = prepare(data);
    self.postMessage(reply, { transfer: moved });
  } catch (error) {
    self.postMessage({ error: error instanceof Error ? error.message : String(error) });
  }
});
