// @ts-check
/** From a photograph that comes in to its masks, and again with another search. */
import * as api from "./api.js";
import { byId } from "./dom.js";
import { withKey } from "./key_dialog.js";
import { pairsWith } from "./masks/pairs.js";
import { openFilters } from "./panel/filters.js";
import { fault, forgive, note, tell } from "./panel/messages.js";
import { bitmapOf, imageOf, withSize } from "./photo.js";
import { Runs } from "./run.js";
import { masksOf, sceneOf, sizeOf } from "./scene.js";

/** @typedef {import("./store.js").Store} Store */

const UNREADABLE = "This browser cannot show this kind of file. Its masks come over grey.";
const NOTHING = "The server found no masks. Search again with lower thresholds or more points per side.";
const MIB = 1 << 20;
const AGAIN = 1000; // milliseconds between two questions whether the server has started

const pause = (/** @type {number} */ milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const NO_MASKS = { masks: [], gone: [], selected: [], lit: null, scene: null };

/** Raises Refusal for a file that is over the server's limit, which would not read it. */
function requireSize(/** @type {Blob} */ file, /** @type {any} */ info) {
  const limit = info.limits.max_body_mib;
  const size = Math.ceil(file.size / MIB);
  if (size > limit)
    throw new api.Refusal(
      413,
      "body_too_large",
      `The file has ${size} MiB. This server takes ${limit} MiB (--max_body_mib).`,
    );
}

/** Whether an error may not come again with the same photograph and search. */
function mayPass(/** @type {Error} */ error) {
  if (!(error instanceof api.Refusal) || error.retryAfter !== null) return true;
  return error.status < 400 || error.status >= 500 || error.status === 401;
}

export class Session {
  constructor(/** @type {Store} */ store) {
    this.store = store;
    this.runs = new Runs(tell);
    this.nextId = 0;
    this.intakes = 0;
  }

  /** Takes a photograph, in the place of another if there is one. */
  take(/** @type {File} */ file) {
    this.intakes++;
    void this.segment(file, {}, true);
  }

  /** Takes a photograph that is on its way, unless another comes before it. */
  async takeLater(/** @type {Promise<File>} */ coming) {
    const intake = ++this.intakes;
    try {
      const file = await coming;
      if (intake === this.intakes) this.take(file);
    } catch (error) {
      if (intake === this.intakes) fault(/** @type {Error} */ (error), null);
    }
  }

  /** Searches the photograph again. */
  again(/** @type {Record<string, string>} */ search) {
    const { image } = this.store.state;
    if (image) void this.segment(image.file, search, false);
  }

  /** Stops what is under way. */
  cancel() {
    this.runs.stop();
    tell(null);
    this.store.set({ phase: this.store.state.scene ? "ready" : "failed" });
    if (!this.store.state.scene) fault(new Error("Cancelled."), () => this.again(this.store.state.search));
  }

  /** Shows a photograph if it is new, has the server segment it, and shows its masks. */
  async segment(/** @type {File} */ file, /** @type {Record<string, string>} */ search, /** @type {boolean} */ isNew) {
    forgive();
    try {
      const found = await this.runs.only(async (run) => {
        const image = isNew ? await this._show(file, run) : this.store.state.image;
        if (run.control.signal.aborted) return null;
        this.store.set({ phase: "working" });
        if (isNew) byId("viewport").focus({ preventScroll: true }); // what had the focus may be gone
        await this._started(run);
        requireSize(file, this.store.state.info);
        const records = await withKey(() => this.runs.records(file, search, run));
        tell("Laying the masks over the photograph");
        const masks = masksOf(records);
        const sized = withSize(image, sizeOf(records));
        return { image: sized, masks, scene: await sceneOf(masks, sized, run.control.signal), search };
      });
      if (found) this._present(found);
    } catch (error) {
      this._fail(/** @type {Error} */ (error), () => this.segment(file, search, !this.store.state.image));
    }
  }

  /** Shows a photograph without masks. */
  async _show(/** @type {File} */ file, /** @type {{control: AbortController}} */ run) {
    tell("Reading the photograph");
    const bitmap = await bitmapOf(file);
    const image = imageOf(file, bitmap);
    if (run.control.signal.aborted) {
      bitmap?.close();
      return image;
    }
    note(bitmap ? null : UNREADABLE);
    this.store.forget();
    const { image: last } = this.store.state;
    const filters = openFilters({ ...this.store.state, search: {} });
    this.store.set({ ...NO_MASKS, image, search: {}, filters, phase: "working" });
    last?.bitmap?.close();
    return image;
  }

  /** Waits until the server has started. */
  async _started(/** @type {{control: AbortController}} */ { control: { signal } }) {
    let { info } = this.store.state;
    while (!info?.ready && !signal.aborted) {
      info = await withKey(api.info);
      if (info.ready) this.store.set({ info });
      else await this._waitFor(signal);
    }
  }

  async _waitFor(/** @type {AbortSignal} */ signal) {
    try {
      await api.ready();
    } catch (error) {
      if (!(error instanceof api.Refusal) || error.code !== "not_ready") throw error;
      if (!signal.aborted) tell(error.message);
    }
    await pause(AGAIN);
  }

  _present(/** @type {any} */ { image, masks, scene, search }) {
    tell(null);
    const kept = this._carryKept(image, scene, masks);
    this.store.forget();
    this.nextId = masks.length + kept.length;
    const { minArea, maxOverlap } = this.store.state.filters;
    const filters = Object.freeze({ ...openFilters({ ...this.store.state, search }), minArea, maxOverlap });
    this.store.set({
      image,
      masks: [...masks, ...kept],
      gone: [],
      scene,
      search,
      filters,
      selected: [],
      lit: null,
      phase: "ready",
    });
    if (!masks.length) note(NOTHING);
    else note(image.bitmap ? null : UNREADABLE);
  }

  /** Adds the masks that are kept to another scene of the photograph, with ids after those of its masks. */
  _carryKept(/** @type {any} */ image, /** @type {any} */ scene, /** @type {readonly any[]} */ found) {
    const { masks, scene: old, image: shown } = this.store.state;
    if (!old || shown.width !== image.width || shown.height !== image.height) return [];
    const all = [...found];
    for (const mask of masks.filter((one) => one.kept)) {
      const id = all.length;
      const origin = mask.origin === "merged" ? "merged" : "carried";
      const carried = Object.freeze({ ...mask, id, origin });
      scene.stacks.add(id, mask.runs, mask.area);
      scene.pairs.push(...pairsWith(carried, all, image.height));
      scene.colours.set(id, old.colours.get(mask.id));
      all.push(carried);
    }
    return all.slice(found.length);
  }

  _fail(/** @type {Error} */ error, /** @type {() => void} */ again) {
    tell(null);
    const { scene, image } = this.store.state;
    const mayHelp = mayPass(error);
    if (image && !image.bitmap && !scene && !mayHelp) {
      note(null); // neither the browser nor the server can read it
      this.store.set({ phase: "empty", image: null });
    } else this.store.set({ phase: scene ? "ready" : image ? "failed" : "empty" });
    fault(error, mayHelp ? again : null);
  }
}
