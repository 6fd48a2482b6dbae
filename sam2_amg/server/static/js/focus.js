// @ts-check
/** Where the focus goes when what had it is hidden, disabled or removed: to the photograph, or to the way in. */
import { byId } from "./dom.js";

const CHANGES = ["hidden", "disabled", "open", "class", "data-phase", "data-idle", "data-masks"];

const isSeen = (/** @type {Element} */ element) => element.checkVisibility({ visibilityProperty: true });

/** Watches what has the focus. */
export function listen() {
  /** @type {any} */
  let last = null;
  document.addEventListener("focusin", ({ target }) => (last = target));
  new MutationObserver((changes) => {
    if (!last || document.querySelector("dialog[open]")) return;
    if (last.id === "viewport" && document.body.dataset.phase !== "empty") return;
    const { activeElement } = document;
    if (activeElement !== last && activeElement !== document.body) return;
    const isChanged = changes.some(({ type }) => type === "attributes");
    if (last.isConnected && !last.disabled && (!isChanged || isSeen(last))) return;
    last = null;
    const home = [byId("viewport"), document.querySelector("[data-way=open]")].find((one) => one && isSeen(one));
    home?.focus({ preventScroll: true });
  }).observe(document.body, { subtree: true, childList: true, attributes: true, attributeFilter: CHANGES });
}
