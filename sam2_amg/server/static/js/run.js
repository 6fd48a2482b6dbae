// @ts-check
/** A request's life: send, follow, answer. A new one takes the place of one that is under way. */
import * as api from "./api.js";
import { progress } from "./words.js";

const EVERY = 250; // milliseconds between two questions where a request is

/** @returns {string} an id that no other request has */
function newId() {
  const numbers = crypto.getRandomValues(new Uint32Array(3));
  return `page-${[...numbers].map((number) => number.toString(36)).join("")}`;
}

export class Runs {
  /** @param {(text: string) => void} tell is given sentences of progress */
  constructor(tell) {
    this.tell = tell;
    /** @type {{id: string, control: AbortController, isSent: boolean} | null} */
    this.current = null;
  }

  /** Cancels what is under way, here and on the server. */
  stop() {
    const run = this.current;
    this.current = null;
    if (!run) return;
    run.control.abort();
    if (run.isSent) api.cancel(run.id).catch(() => undefined); // it may have ended by now
  }

  /**
   * Does `work` as the one run there is. Answers null if another has taken its place, or it was cancelled.
   * @template T
   * @param {(run: {id: string, control: AbortController, isSent: boolean}) => Promise<T>} work
   */
  async only(work) {
    this.stop();
    const run = { id: newId(), control: new AbortController(), isSent: false };
    this.current = run;
    try {
      const result = await work(run);
      return this.current === run ? result : null;
    } catch (error) {
      if (this.current !== run) return null;
      throw error;
    } finally {
      if (this.current === run) this.current = null;
    }
  }

  /**
   * The records of a photograph. Raises Refusal.
   * @param {Blob} file
   * @param {Record<string, string>} search
   * @param {{id: string, control: AbortController, isSent: boolean}} run
   */
  async records(file, search, run) {
    const { signal } = run.control;
    const ended = new AbortController();
    let isFollowed = false;
    this.tell("Sending the photograph");
    try {
      return await api.segment(file, search, {
        id: run.id,
        signal,
        sent: (share) => {
          if (share < 1) this.tell(`Sending the photograph · ${Math.floor(share * 100)} %`);
          else if (!isFollowed) {
            isFollowed = run.isSent = true;
            void this._follow(run.id, AbortSignal.any([signal, ended.signal]));
          }
        },
      });
    } finally {
      ended.abort();
    }
  }

  /** Tells where the request is, until it is over. */
  async _follow(/** @type {string} */ id, /** @type {AbortSignal} */ over) {
    while (true) {
      await new Promise((resolve) => setTimeout(resolve, EVERY));
      if (over.aborted) return;
      try {
        const ticket = await api.stateOf(id);
        if (!over.aborted) this.tell(progress(ticket));
      } catch {
        // the request's own answer tells what is wrong
      }
    }
  }
}
