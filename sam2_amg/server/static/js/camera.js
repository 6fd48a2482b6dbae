// @ts-check
/** The camera: a dialog with a shutter; where the browser has no camera for pages, the device's own camera. */
import { byId } from "./dom.js";

/** @param {(file: File) => void} take @param {(problem: string) => void} refuse */
export function listen(take, refuse) {
  const dialog = byId("camera-dialog");
  const finder = byId("finder");
  for (const button of [byId("camera"), ...document.querySelectorAll("[data-way=camera]")]) {
    button.addEventListener("click", () => {
      if (navigator.mediaDevices) open(dialog, finder, refuse);
      else byId("capture").click();
    });
  }
  byId("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => release(finder));
  byId("shutter").addEventListener("click", async () => {
    const file = await picture(finder);
    dialog.close();
    if (file) take(file);
  });
}

let isOpening = false; // a person may still be asked whether the page may use the camera

async function open(
  /** @type {HTMLDialogElement} */ dialog,
  /** @type {HTMLVideoElement} */ finder,
  /** @type {(problem: string) => void} */ refuse,
) {
  if (isOpening) return;
  isOpening = true;
  try {
    const video = { facingMode: "environment", width: { ideal: 2560 }, height: { ideal: 1920 } };
    finder.srcObject = await navigator.mediaDevices.getUserMedia({ video });
    dialog.showModal();
    await finder.play();
  } catch (error) {
    const { name } = /** @type {Error} */ (error);
    if (dialog.open) dialog.close();
    if (name === "AbortError") return; // the dialog was closed before the camera was there
    if (name === "NotAllowedError")
      refuse("The camera is not allowed. Allow it in the browser's settings of this page.");
    else if (name === "NotFoundError") refuse("There is no camera. Choose a file instead.");
    else refuse("The camera cannot be opened. Another program may use it.");
  } finally {
    isOpening = false;
  }
}

/** The picture that the finder shows. */
async function picture(/** @type {HTMLVideoElement} */ finder) {
  const { videoWidth: width, videoHeight: height } = finder;
  if (!width) return null;
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  canvas.getContext("2d")?.drawImage(finder, 0, 0);
  /** @type {Blob | null} */
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.95));
  return blob && new File([blob], "camera.jpg", { type: "image/jpeg" });
}

/** Switches the camera off. */
function release(/** @type {HTMLVideoElement} */ finder) {
  const stream = /** @type {MediaStream | null} */ (finder.srcObject);
  for (const track of stream?.getTracks() ?? []) track.stop();
  finder.srcObject = null;
}
