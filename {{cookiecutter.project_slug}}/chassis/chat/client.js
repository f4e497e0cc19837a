// Calls of the API, with the token of who is signed in, or the key that it may ask for.

import { Problem, problemOf } from "./problems.js";
import { read, request } from "./request.js";
import { ended, forget, freshToken, offer, refresh, token } from "./signin.js";

const KEY = "api-key"; // only in the tab's own storage, never in an address

let askForKey = async () => null;

/** Say how to ask the person for a key; the function gets what is wrong with what was shown and returns one or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => (forget(), sessionStorage.setItem(KEY, value)), // it counts from now on, in place of a sign-in
  forget: () => sessionStorage.clear(),
};

/** Call the API and return the response; the person is asked for a key, or to sign in, when that is needed. */
export async function call(path, { method = "GET", body, headers, signal, patience } = {}) {
  for (let mayRenew = true; ; ) {
    const shown = (await freshToken()) ?? key.get();
    const response = await request(path, {
      method,
      signal,
      patience,
      body: body instanceof Blob ? body : body && JSON.stringify(body),
      headers: {
        ...(body && { "Content-Type": body instanceof Blob ? body.type || "application/octet-stream" : "application/json" }),
        ...(shown && { Authorization: `Bearer ${shown}` }),
        ...headers,
      },
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    if ((token() ?? key.get()) !== shown) continue; // somebody else has asked meanwhile
    if (mayRenew && token()) {
      mayRenew = false; // a new token that is refused too isn't renewed for ever
      if (await refresh()) continue;
    }
    const refusal = token() ? ended() : shown ? problem : null;
    const given = await askForKey(refusal?.message ?? "");
    if (!given) throw refusal ?? (await nothingShown());
    key.set(given);
  }
}

async function nothingShown() {
  const isOffered = await offer().catch(() => null);
  if (isOffered) return new Problem({ what: "You aren't signed in.", hint: "", action: "access" });
  return new Problem({ what: "An API key is needed.", hint: "", action: "key" });
}

/** Call the API and return the JSON of its answer. */
export const get = async (path, options) => read(await call(path, options));
