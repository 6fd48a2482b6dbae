// @ts-check
/**
 * The page's state: frozen, replaced as a whole, with a list of snapshots to undo edits.
 *
 * @typedef {import("./masks/mask.js").Mask} Mask
 * @typedef {{minIou: number, minStability: number, minArea: number, maxOverlap: number}} Filters
 * @typedef {{
 *   phase: "empty" | "working" | "ready" | "failed",
 *   info: any, image: any, scene: any, masks: readonly Mask[], gone: readonly Mask[], selected: readonly number[], lit: number | null,
 *   filters: Filters, visible: ReadonlySet<number>, search: Record<string, string>,
 *   style: string, opacity: Record<string, number>, compare: number | null,
 *   canUndo: boolean, canRedo: boolean,
 * }} State
 * `gone` has the masks that were deleted or merged: they go on dropping their duplicates, so that a deletion brings no
 * other mask up. `image` is {name, file, bitmap, width, height}, `scene` is {stacks, pairs, colours}; `search` has the parameters of
 * the answer that differ from the server's; `compare` is where the divider stands, 0 to 1.
 */
import { visibleIds } from "./masks/filters.js";

const MOST_SNAPSHOTS = 200;

/** Filters that drop nothing. */
export const OPEN = Object.freeze({ minIou: 0, minStability: 0, minArea: 0, maxOverlap: 1 });

/** @returns {State} */
function firstState() {
  return Object.freeze({
    phase: "empty",
    info: null,
    image: null,
    scene: null,
    masks: [],
    gone: [],
    selected: [],
    lit: null,
    filters: OPEN,
    visible: new Set(),
    search: {},
    style: "fill",
    opacity: Object.freeze({ fill: 0.55, outline: 1, boxes: 1 }),
    compare: null,
    canUndo: false,
    canRedo: false,
  });
}

/** The masks that are to be seen: those that pass the filters or are kept, and are not hidden. */
function visibleOf(/** @type {State} */ state) {
  const gone = state.gone.map((mask) => ({ ...mask, kept: false }));
  const all = [...state.masks, ...gone].sort((a, b) => a.id - b.id);
  const passing = visibleIds(all, state.scene?.pairs ?? [], state.filters);
  const seen = state.masks.filter((mask) => !mask.hidden && passing.has(mask.id));
  return new Set(seen.map((mask) => mask.id));
}

const isSame = (/** @type {ReadonlySet<number>} */ a, /** @type {ReadonlySet<number>} */ b) =>
  a.size === b.size && [...a].every((id) => b.has(id));

export class Store {
  constructor() {
    this.state = firstState();
    /** @type {((state: State, before: State) => void)[]} */
    this.listeners = [];
    /** @type {Pick<State, "masks" | "gone" | "selected">[]} */
    this.past = [];
    /** @type {Pick<State, "masks" | "gone" | "selected">[]} */
    this.future = [];
  }

  /** Calls `listener` after each change. */
  listen(/** @type {(state: State, before: State) => void} */ listener) {
    this.listeners.push(listener);
  }

  /** Replaces parts of the state. */
  set(/** @type {Partial<State>} */ changes) {
    const before = this.state;
    this.state = Object.freeze(this._settled({ ...before, ...changes }, before));
    for (const listener of this.listeners) listener(this.state, before);
  }

  /** An edit that can be undone. */
  edit(/** @type {Pick<State, "masks"> & Partial<State>} */ changes) {
    this.past.push(this._snapshot());
    if (this.past.length > MOST_SNAPSHOTS) this.past.shift();
    this.future = [];
    this.set(changes);
  }

  /** Forgets all edits, as another photograph comes. */
  forget() {
    this.past = [];
    this.future = [];
  }

  undo() {
    this._travel(this.past, this.future);
  }

  redo() {
    this._travel(this.future, this.past);
  }

  _travel(/** @type {any[]} */ from, /** @type {any[]} */ to) {
    const snapshot = from.pop();
    if (!snapshot) return;
    to.push(this._snapshot());
    this.set(snapshot);
  }

  _snapshot() {
    return { masks: this.state.masks, gone: this.state.gone, selected: this.state.selected };
  }

  /** The state with what follows from its parts. */
  _settled(/** @type {State} */ state, /** @type {State} */ before) {
    if (state.masks !== before.masks || state.filters !== before.filters || state.scene !== before.scene) {
      const visible = visibleOf(state);
      if (!isSame(visible, before.visible)) state.visible = visible;
      state.selected = state.selected.filter((id) => state.visible.has(id));
      if (state.lit !== null && !state.visible.has(state.lit)) state.lit = null;
    }
    state.canUndo = this.past.length > 0;
    state.canRedo = this.future.length > 0;
    return state;
  }
}
