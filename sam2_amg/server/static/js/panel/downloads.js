// @ts-check
/** Taking masks home: files, and the curl line that gets the same. */
import { knownKey } from "../api.js";
import { byId, painted, save, say } from "../dom.js";
import { cocoDocument } from "../files/coco.js";
import { curlLine } from "../files/curl.js";
import { cutOutNames, cutOutPng } from "../files/cutouts.js";
import { labelMapPng } from "../files/labelmap.js";
import { overlayPng } from "../files/overlay.js";
import { recordsList } from "../files/records.js";
import { zip } from "../files/zip.js";
import { inOrder } from "../masks/mask.js";
import { openFilters } from "./filters.js";
import { stemOf } from "../photo.js";
import { masks as countOf } from "../words.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

/** The masks that files have: those kept, or all that are visible if none is. In the order of the server's records. */
function chosenOf(/** @type {State} */ { masks, visible }) {
  const kept = masks.filter((mask) => mask.kept);
  return inOrder(kept.length ? kept : masks.filter((mask) => visible.has(mask.id)));
}

const json = (/** @type {any} */ value) => new Blob([JSON.stringify(value), "\n"], { type: "application/json" });

/** @type {Record<string, {end: string, make: (state: State, masks: any[]) => Blob | Promise<Blob>}>} */
const FILES = {
  coco: { end: "coco.json", make: ({ image }, masks) => json(cocoDocument(image, masks)) },
  records: { end: "records.json", make: (_, masks) => json(recordsList(masks)) },
  png: {
    end: "overlay.png",
    make: ({ image, scene, style, opacity }, masks) => {
      const options = { style: /** @type {any} */ (style), opacity: opacity[style], colours: scene.colours };
      return overlayPng(image.bitmap, image.width, image.height, masks, options);
    },
  },
  labelmap: { end: "labels.png", make: ({ image }, masks) => labelMapPng(image.width, image.height, masks) },
  cutouts: { end: "cutouts.zip", make: cutOuts },
};

const BUSY = ["aria-busy", "aria-disabled"];
const OF_PHOTOGRAPH = ["png", "cutouts"];

/** A zip with a picture a mask. */
async function cutOuts(/** @type {State} */ { image }, /** @type {any[]} */ masks) {
  const names = cutOutNames(masks);
  const files = [];
  for (const [i, mask] of masks.entries()) {
    files.push({ name: names[i], blob: await cutOutPng(image.bitmap, image.width, image.height, mask) });
  }
  return zip(files);
}

/** @param {Store} store @param {(problem: string) => void} refuse */
export function start(store, refuse) {
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener(
      "click",
      () => void download(store.state, /** @type {HTMLButtonElement} */ (button), refuse),
    );
  }
  byId("curl-format").addEventListener("change", () => showLine(store.state));
  byId("copy").addEventListener("click", copy);
  store.listen((state, before) => {
    if (state.masks !== before.masks || state.visible !== before.visible || state.image !== before.image)
      showWhat(state);
    const differs = (/** @type {(keyof State)[]} */ ...names) => names.some((name) => state[name] !== before[name]);
    if (differs("image", "filters", "search", "style", "opacity", "info")) showLine(state);
  });
}

async function download(
  /** @type {State} */ state,
  /** @type {HTMLButtonElement} */ button,
  /** @type {(problem: string) => void} */ refuse,
) {
  const { end, make } = FILES[/** @type {string} */ (button.dataset.download)];
  if (button.ariaBusy) return;
  for (const name of BUSY) button.setAttribute(name, "true"); // not disabled: it keeps the focus
  await painted();
  try {
    save(await make(state, chosenOf(state)), `${stemOf(state.image.name)}.${end}`);
  } catch (error) {
    refuse(`The file could not be made: ${/** @type {Error} */ (error).message}.`);
  } finally {
    for (const name of BUSY) button.removeAttribute(name);
  }
}

function showWhat(/** @type {State} */ state) {
  const chosen = chosenOf(state);
  const areKept = chosen.some((mask) => mask.kept);
  const number = chosen.length === 1 ? "mask" : countOf(chosen.length);
  const text = areKept
    ? `Files have the ${number} that you keep.`
    : `Files have ${chosen.length === 1 ? "the" : "all"} ${number} that you see. Keep some to have only those.`;
  say(byId("save-what"), chosen.length ? text : "There are no masks to save.");
  const cannotShow = state.image !== null && !state.image.bitmap;
  byId("save-not").hidden = !cannotShow;
  for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-download]"))) {
    const isOfPhotograph = OF_PHOTOGRAPH.includes(button.dataset.download ?? "");
    button.disabled = chosen.length === 0 || (cannotShow && isOfPhotograph);
  }
}

function showLine(/** @type {State} */ state) {
  if (!state.image) return;
  const format = byId("curl-format").value;
  say(
    byId("curl-line"),
    curlLine({
      origin: new URL(".", document.baseURI).href.replace(/\/$/, ""),
      format,
      name: state.image.name,
      search:
        format === "png"
          ? { ...state.search, style: state.style, opacity: String(state.opacity[state.style]) }
          : state.search,
      filters: changedFilters(state),
      needsKey: knownKey() !== null,
    }),
  );
}

/** The filters that drop masks. */
function changedFilters(/** @type {State} */ state) {
  const open = openFilters(state);
  return Object.fromEntries(
    Object.entries(state.filters).filter(([name, value]) => value !== open[/** @type {keyof typeof open} */ (name)]),
  );
}

async function copy() {
  const button = byId("copy");
  try {
    await navigator.clipboard.writeText(byId("curl-line").textContent ?? "");
    button.textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(byId("curl-line"));
    button.textContent = "Selected; press Ctrl C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2500);
}
