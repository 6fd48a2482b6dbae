// @ts-check
/** Asks for the API key where the server wants one. */
import { keepKey, knownKey, Refusal } from "./api.js";
import { byId, say } from "./dom.js";

/**
 * Does `work`; if the server refuses it for want of a key, asks for the key and does it again.
 * @template T
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withKey(work) {
  while (true) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Refusal) || error.status !== 401) throw error;
      if (!(await askForKey())) throw error;
    }
  }
}

/** @type {Promise<boolean> | null} one question for all that wait */
let asking = null;

/** Whether a key was given. */
function askForKey() {
  asking ??= question().finally(() => (asking = null));
  return asking;
}

/** @returns {Promise<boolean>} */
function question() {
  const dialog = byId("key-dialog");
  const field = byId("key");
  if (knownKey() !== null)
    say(byId("key-problem"), "The server does not take that key. Look for a missing letter or a space.");
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "given"), { once: true });
  });
}

/** Has the dialog's buttons act. */
export function listen() {
  const dialog = byId("key-dialog");
  byId("key-close").addEventListener("click", () => dialog.close(""));
  byId("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    keepKey(byId("key").value.trim());
    byId("key").value = "";
    dialog.close("given");
  });
}
