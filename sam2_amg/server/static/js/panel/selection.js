// @ts-check
/** What is selected, what is kept, and the buttons that edit. */
import { byId, eachFrame, element, icon, say } from "../dom.js";
import { letGo, rename, targets } from "../edits.js";
import { rgb } from "../painter.js";
import { count, masks as countOf, numbers, title } from "../words.js";

/** @typedef {import("../store.js").State} State @typedef {import("../store.js").Store} Store */

export function start(/** @type {Store} */ store) {
  const show = eachFrame(() => showSelection(store.state));
  store.listen((state, before) => {
    const differs = (/** @type {(keyof State)[]} */ ...names) => names.some((name) => state[name] !== before[name]);
    if (differs("selected", "masks", "visible", "lit")) show();
    if (differs("masks", "selected")) showKept(state, store);
    if (differs("masks")) showHidden(state);
  });
  showSelection(store.state);
}

function showSelection(/** @type {State} */ state) {
  const { masks, selected, image } = state;
  const chosen = targets(state);
  const place = byId("selection-count");
  place.dataset.value = String(selected.length);
  say(place, count(selected.length));
  for (const id of ["keep", "hide", "delete"]) byId(id).disabled = chosen.length === 0;
  byId("merge").disabled = chosen.length < 2;
  byId("keep").setAttribute("aria-pressed", String(chosen.length > 0 && chosen.every((mask) => mask.kept)));
  const one = selected.length === 1 ? masks.find((mask) => mask.id === selected[0]) : null;
  const text = one ? `${title(one)}. ${numbers(one, image.width * image.height)}` : textOf(selected.length);
  say(byId("selection-text"), text);
}

function textOf(/** @type {number} */ selected) {
  if (!selected && matchMedia("(pointer: coarse)").matches) return "Tap a mask to select it. Hold to select more.";
  if (!selected) return "Click a mask to select it. Shift-click selects more.";
  return "The buttons act on all of them.";
}

function showHidden(/** @type {State} */ { masks }) {
  const hidden = masks.filter((mask) => mask.hidden).length;
  byId("show-hidden").hidden = hidden === 0;
  say(byId("show-hidden"), `Show ${countOf(hidden)} hidden by hand`);
}

function showKept(/** @type {State} */ { masks, selected, scene }, /** @type {Store} */ store) {
  const kept = masks.filter((mask) => mask.kept);
  const list = byId("kept");
  byId("kept-none").hidden = kept.length > 0;
  byId("kept-count").dataset.value = String(kept.length);
  say(byId("kept-count"), count(kept.length));
  const known = new Map([...list.children].map((item) => [Number(/** @type {HTMLElement} */ (item).dataset.id), item]));
  const items = kept.map((mask) =>
    refreshed(known.get(mask.id) ?? itemOf(mask, store), mask, selected.includes(mask.id), scene),
  );
  const isSame = items.length === list.children.length && items.every((item, i) => item === list.children[i]);
  if (!isSame) list.replaceChildren(...items); // a field that has the focus keeps it
}

/** A line of the list. */
function itemOf(/** @type {import("../masks/mask.js").Mask} */ { id }, /** @type {Store} */ store) {
  const swatch = element("button", {
    type: "button",
    class: "swatch",
    "aria-label": `Select mask ${id + 1}`,
    title: "Select",
  });
  const name = element("input", {
    type: "text",
    "aria-label": `Name of mask ${id + 1}`,
    placeholder: `Mask ${id + 1}`,
    maxlength: "80",
    autocomplete: "off",
  });
  const drop = element(
    "button",
    { type: "button", class: "icon", "aria-label": `Let go of mask ${id + 1}`, title: "Let go" },
    icon("i-drop"),
  );
  swatch.addEventListener("click", () => store.set({ selected: [id], lit: id }));
  name.addEventListener("change", () => {
    const edit = rename(store.state, id, name.value.trim());
    if (edit) store.edit(edit);
  });
  drop.addEventListener("click", () => store.edit(letGo(store.state, id)));
  const item = element("li", { "data-id": String(id) }, swatch, name, drop);
  item.addEventListener("pointerenter", () => store.set({ lit: store.state.visible.has(id) ? id : null }));
  item.addEventListener("pointerleave", () => store.set({ lit: null }));
  return item;
}

function refreshed(
  /** @type {any} */ item,
  /** @type {import("../masks/mask.js").Mask} */ mask,
  /** @type {boolean} */ isSelected,
  /** @type {any} */ scene,
) {
  item.querySelector(".swatch").style.setProperty("--colour", rgb(scene.colours.get(mask.id)));
  const field = item.querySelector("input");
  if (field.value !== mask.name && document.activeElement !== field) field.value = mask.name;
  item.classList.toggle("selected", isSelected);
  return item;
}
