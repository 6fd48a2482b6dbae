// @ts-check
/** The page: puts its parts together. */
import * as api from "./api.js";
import * as camera from "./camera.js";
import { byId } from "./dom.js";
import * as edits from "./edits.js";
import * as focus from "./focus.js";
import * as keyDialog from "./key_dialog.js";
import * as keys from "./keys.js";
import { pairsWith } from "./masks/pairs.js";
import * as dock from "./panel/dock.js";
import * as downloads from "./panel/downloads.js";
import * as filters from "./panel/filters.js";
import * as messages from "./panel/messages.js";
import * as search from "./panel/search.js";
import * as selection from "./panel/selection.js";
import * as sheet from "./panel/sheet.js";
import { Pointer } from "./pointer.js";
import { Session } from "./session.js";
import { Store } from "./store.js";
import { View } from "./view.js";
import * as ways from "./ways.js";

const store = new Store();
const places = { root: byId("viewport"), photo: byId("photo"), masks: byId("masks"), lit: byId("lit") };
const view = new View(places, store);
const pointer = new Pointer(view, store);
const session = new Session(store);

const refuse = (/** @type {string} */ problem) => messages.fault(new Error(problem), null);
const take = (/** @type {File} */ file) => session.take(file);

/** Makes an edit, if there is something to edit. */
function edit(/** @type {any} */ change) {
  if (change) store.edit(change);
}

/** Makes one mask of those selected. */
function merge() {
  const made = edits.merge(store.state, session.nextId);
  if (!made) return;
  const { merged, largest, others, ...change } = made;
  const { scene, image } = store.state;
  session.nextId++;
  scene.stacks.add(merged.id, merged.runs, merged.area);
  scene.pairs.push(...pairsWith(merged, others, image.height));
  scene.colours.set(merged.id, scene.colours.get(largest.id));
  edit(change);
}

/** Lights another mask, and has it in sight. */
function step(/** @type {string} */ where) {
  const lit = keys.neighbour(store.state, where);
  const mask = store.state.masks.find(({ id }) => id === lit);
  if (!mask) return;
  view.reveal(mask.bbox);
  store.set({ lit });
}

function showKeys() {
  byId("docs").hidden = api.knownKey() !== null; // a link sends no key
  byId("keys-dialog").showModal();
}

const actions = {
  keep: () => edit(edits.keep(store.state)),
  hide: () => edit(edits.hide(store.state)),
  merge,
  remove: () => edit(edits.remove(store.state)),
  undo: () => store.undo(),
  redo: () => store.redo(),
  cycle: () => pointer.cycle(),
  compare: () => dock.compare(store),
  keys: showKeys,
  zoomIn: () => view.zoom(dock.ZOOM),
  zoomOut: () => view.zoom(1 / dock.ZOOM),
  fit: () => view.fit(),
  clear: () => store.set({ selected: [], lit: null }),
  choose: (/** @type {KeyboardEvent} */ event) => pointer.choose(store.state.lit, event.shiftKey),
  pan: (/** @type {KeyboardEvent} */ event) => view.move(...keys.panOf(event)),
  next: () => step("next"),
  previous: () => step("previous"),
  first: () => step("first"),
  last: () => step("last"),
};

/** What tests and style sheets read: attributes of the document that follow the state. */
function mirror(
  /** @type {import("./store.js").State} */ { phase, image, scene, lit, selected, visible, canUndo, canRedo },
) {
  document.body.dataset.phase = phase;
  document.title = image ? `${image.name} · Segment everything` : "Segment everything";
  document.body.toggleAttribute("data-masks", scene !== null);
  const { dataset } = places.root;
  if (lit === null) delete dataset.lit;
  else dataset.lit = String(lit);
  dataset.selected = selected.join(",");
  dataset.visible = String(visible.size);
  byId("undo").disabled = !canUndo;
  byId("redo").disabled = !canRedo;
}

/** Asks what the server is; an answer to a photograph needs it, too, and says what is wrong. */
async function greet() {
  try {
    const info = await keyDialog.withKey(api.info);
    store.set({ info });
  } catch (error) {
    messages.fault(/** @type {Error} */ (error), () => void greet());
  }
}

function showModel(/** @type {any} */ { model, mode, device }) {
  byId("model").textContent = `SAM 2.1 ${model} · ${mode} · ${device}`;
}

function start() {
  focus.listen();
  keyDialog.listen();
  ways.listen(take, (coming) => void session.takeLater(coming), refuse);
  camera.listen(take, refuse);
  keys.listKeys(byId("keys-dialog").querySelector("dl"));
  keys.listen(actions, places.root);
  for (const part of [filters, selection, messages]) part.start(store);
  search.start(store, (parameters) => session.again(parameters));
  downloads.start(store, refuse);
  dock.start(store, view);
  sheet.start();
  view.onPlace.push(() => {
    pointer.forget();
    const { scale, x, y } = view.place;
    Object.assign(places.root.dataset, { scale: String(scale), x: String(x), y: String(y) });
  });
  store.listen((state, before) => {
    if (state.visible !== before.visible) pointer.forget();
    if (state.info !== before.info) showModel(state.info);
    mirror(state);
  });
  /** @type {[string, () => void][]} */
  const buttons = [
    ["keep", actions.keep],
    ["hide", actions.hide],
    ["merge", merge],
    ["delete", actions.remove],
    ["undo", actions.undo],
    ["redo", actions.redo],
    ["keys", actions.keys],
    ["keys-close", () => byId("keys-dialog").close()],
    ["cancel", () => session.cancel()],
    ["show-hidden", () => edit(edits.showHidden(store.state))],
  ];
  for (const [id, act] of buttons) byId(id).addEventListener("click", act);
  void greet();
}

start();
