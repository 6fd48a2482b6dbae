// @ts-check
/** The server's HTTP interface. */

const KEY = "sam2-amg-key";

/** An answer that is an error. `retryAfter` is in seconds; null if trying again does not help. */
export class Refusal extends Error {
  constructor(
    /** @type {number} */ status,
    /** @type {string} */ code,
    /** @type {string} */ message,
    /** @type {number | null} */ retryAfter = null,
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

/** The key of this tab, if one was given. */
export const knownKey = () => sessionStorage.getItem(KEY);

/** Keeps the key for this tab. */
export function keepKey(/** @type {string | null} */ key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** The address of a route, below where the page stands. */
export const address = (/** @type {string} */ path) => new URL(path, document.baseURI).href;

/** @returns {Record<string, string>} */
function authorization() {
  const key = knownKey();
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/**
 * The body of a JSON route. Raises Refusal.
 * @param {string} path
 * @param {RequestInit} [options]
 */
async function ask(path, options = {}) {
  const headers = { ...authorization(), ...options.headers };
  let answer;
  try {
    answer = await fetch(address(path), { cache: "no-store", ...options, headers });
  } catch (error) {
    if (error instanceof DOMException) throw error; // aborted
    throw unreachable();
  }
  const text = await answer.text();
  if (!answer.ok) throw refusalOf(answer.status, text, answer.headers.get("Retry-After"));
  return parsed(answer.status, text);
}

/** The JSON of an answer. Raises Refusal. */
function parsed(/** @type {number} */ status, /** @type {string} */ text) {
  try {
    return JSON.parse(text);
  } catch {
    const message = "The answer is not the server's. A proxy or a login page may have sent it; reload this page to see.";
    throw new Refusal(status, "no_json", message);
  }
}

function unreachable() {
  return new Refusal(0, "unreachable", "The server does not answer. It may have stopped, or the network is down.", 5);
}

/** The Refusal that an answer tells of. */
function refusalOf(/** @type {number} */ status, /** @type {string} */ text, /** @type {string | null} */ retryAfter) {
  const seconds = retryAfter === null ? null : Number(retryAfter);
  try {
    const { code, message } = JSON.parse(text).error;
    return new Refusal(status, code, message, seconds);
  } catch {
    return new Refusal(status, "unknown", `The server answered with status ${status}.`, seconds);
  }
}

/** What the server is and may. */
export const info = () => ask("info");

/** Raises Refusal not_ready with what the server is doing while it starts. */
export const ready = () => ask("readyz");

/** Where a request is. */
export const stateOf = (/** @type {string} */ id) => ask(`requests/${id}`);

/** Cancels a request. */
export const cancel = (/** @type {string} */ id) => ask(`requests/${id}`, { method: "DELETE" });

/** A sample photograph. */
export async function sample(/** @type {string} */ name) {
  const answer = await fetch(address(`page/samples/${name}`)).catch(() => null);
  if (!answer) throw unreachable();
  if (!answer.ok) throw new Refusal(answer.status, "no_sample", `The sample ${name} is not there.`);
  return new File([await answer.blob()], name, { type: "image/jpeg" });
}

/**
 * Sends a photograph, and answers its records. Raises Refusal, or AbortError once `signal` is aborted.
 * @param {Blob} file
 * @param {Record<string, string>} search parameters of the request
 * @param {{id: string, signal: AbortSignal, sent: (share: number) => void}} options `sent` is told how much has gone
 * @returns {Promise<any[]>}
 */
export function segment(file, search, { id, signal, sent }) {
  const query = new URLSearchParams({ format: "records", counts: "compressed", ...search });
  const request = new XMLHttpRequest();
  request.open("POST", address(`segment?${query}`));
  const type = file.type.startsWith("image/") ? file.type : "application/octet-stream";
  const headers = { ...authorization(), "X-Request-ID": id, "Content-Type": type };
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.onprogress = (event) => sent(event.loaded / event.total);
  request.upload.onload = () => sent(1);
  return new Promise((resolve, reject) => {
    const gone = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.onabort = gone;
    request.onerror = () => reject(unreachable());
    request.onload = () => {
      const { status, responseText } = request;
      if (status !== 200) reject(refusalOf(status, responseText, request.getResponseHeader("Retry-After")));
      else resolve(Promise.resolve(responseText).then((text) => parsed(status, text)));
    };
    if (signal.aborted) gone();
    else request.send(file);
  });
}
