// Calls of the API, with the key that it may ask for.

import { Problem, problemOf, unreachable } from "./problems.js";

const KEY = "api-key"; // only in the tab's own storage, never in an address
const PATIENCE = 20_000; // milliseconds until an answer must have begun

let askForKey = async () => null;

/** Say how to ask the person for a key; the function gets what is wrong with the last and returns one or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.clear(),
};

/** Call the API and return the response; the person is asked for a key when one is needed. */
export async function call(path, { method = "GET", body, headers, signal } = {}) {
  for (;;) {
    const shown = key.get();
    const response = await begin(path, {
      method,
      signal,
      body: body && JSON.stringify(body),
      headers: {
        ...(body && { "Content-Type": "application/json" }),
        ...(shown && { Authorization: `Bearer ${shown}` }),
        ...headers,
      },
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    if (key.get() !== shown) continue; // somebody else has asked meanwhile
    const given = await askForKey(shown ? problem.message : "");
    if (!given) throw shown ? problem : new Problem({ what: "An API key is needed.", hint: "", action: "key" });
    key.set(given);
  }
}

/** Fetch, but don't wait for ever: a connection may be dead without anybody having said so. */
async function begin(path, { signal, ...options }) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), PATIENCE);
  try {
    return await fetch(path, { ...options, signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal });
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  } finally {
    clearTimeout(timer);
  }
}

/** Call the API and return the JSON of its answer. */
export const get = async (path, options) => (await call(path, options)).json();
