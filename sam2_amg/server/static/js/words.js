// @ts-check
/** Sentences and numbers, as the page says them. */

const ORDINALS = ["Next", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth"];
const whole = new Intl.NumberFormat("en");

/** 1234567 -> "1,234,567" */
export const count = (/** @type {number} */ number) => whole.format(number);

/** "1 mask", "3 masks" */
export const masks = (/** @type {number} */ number) => `${count(number)} ${number === 1 ? "mask" : "masks"}`;

/** 0.9342 -> "0.934" */
export const score = (/** @type {number} */ number) => number.toFixed(3);

/** A share of all pixels: 0.0312 -> "3.1 %" */
export function share(/** @type {number} */ part) {
  const percent = part * 100;
  if (percent > 0 && percent < 0.1) return "< 0.1 %";
  return `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
}

/**
 * What is said of a request in this state.
 * @param {{state: string, place: number | null, seconds_since: Record<string, number>}} ticket
 */
export function progress(ticket) {
  const seconds = Math.floor(ticket.seconds_since[ticket.state] ?? 0);
  const since = seconds > 0 ? ` · ${seconds} s` : "";
  switch (ticket.state) {
    case "received":
    case "decoding":
      return `Reading the photograph${since}`;
    case "queued":
      return `${place(ticket.place)}${since}`;
    case "segmenting":
      return `Segmenting${since}`;
    case "rendering":
      return "Writing the masks";
    default:
      return "Receiving the masks";
  }
}

/** A place in the queue: how many photographs come before this one. */
export function place(/** @type {number | null} */ before) {
  if (before === null) return "In line";
  return before < ORDINALS.length ? `${ORDINALS[before]} in line` : `Number ${before + 1} in line`;
}

/** The numbers of a mask in a line. */
export function numbers(/** @type {any} */ mask, /** @type {number} */ pixels) {
  const parts = [
    `Predicted IoU ${score(mask.predictedIou)}`,
    `stability ${score(mask.stability)}`,
    `area ${count(mask.area)} px (${share(mask.area / pixels)})`,
  ];
  return parts.join(" · ");
}

/** What a mask is called. Masks are counted from 1. */
export const title = (/** @type {any} */ mask) => mask.name || `Mask ${mask.id + 1}`;
