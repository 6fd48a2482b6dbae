// @ts-check
/** On a narrow page the panel is a sheet that can be pushed down. */
import { byId } from "../dom.js";

export function start() {
  const handle = byId("sheet");
  handle.addEventListener("click", () => {
    const isOpen = handle.getAttribute("aria-expanded") === "true";
    handle.setAttribute("aria-expanded", String(!isOpen));
    document.body.classList.toggle("pushed-down", isOpen);
  });
}
