// @ts-check
/** The ways in: a file that is picked, dropped or pasted, a sample. */
import * as api from "./api.js";
import { byId, isTyping } from "./dom.js";

/**
 * Has files come in.
 * @param {(file: File) => void} take
 * @param {(file: Promise<File>) => void} wait takes a file that is on its way
 * @param {(problem: string) => void} refuse
 */
export function listen(take, wait, refuse) {
  for (const id of ["file", "capture"]) listenToInput(byId(id), take);
  for (const button of [byId("open"), ...document.querySelectorAll("[data-way=open]")]) {
    button.addEventListener("click", () => byId("file").click());
  }
  listenToDrops(take, refuse);
  document.addEventListener("paste", (event) => {
    if (isTyping(event.target)) return;
    const file = firstFile(event.clipboardData);
    if (file) take(file);
    else refuse("The clipboard has no photograph. Copy one, and paste again.");
  });
  for (const button of document.querySelectorAll("[data-sample]")) {
    const name = /** @type {HTMLElement} */ (button).dataset.sample ?? "";
    button.addEventListener("click", () => wait(api.sample(name)));
  }
}

function listenToInput(/** @type {HTMLInputElement} */ input, /** @type {(file: File) => void} */ take) {
  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) take(file);
    input.value = ""; // so that the same file can be picked again
  });
}

/** The first photograph of what is dropped or pasted; else its first file. */
function firstFile(/** @type {DataTransfer | null} */ data) {
  const files = [...(data?.files ?? [])];
  return files.find((file) => file.type.startsWith("image/")) ?? files[0];
}

function listenToDrops(/** @type {(file: File) => void} */ take, /** @type {(problem: string) => void} */ refuse) {
  const veil = byId("dropping");
  let depth = 0;
  const show = (/** @type {number} */ change) => {
    depth = Math.max(0, depth + change);
    veil.hidden = depth === 0;
  };
  window.addEventListener("dragenter", (event) => {
    event.preventDefault();
    show(1);
  });
  window.addEventListener("dragleave", () => show(-1));
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    show(-depth);
    const file = firstFile(event.dataTransfer);
    if (file) take(file);
    else refuse("No file came with that. Drop a photograph from a folder.");
  });
}
