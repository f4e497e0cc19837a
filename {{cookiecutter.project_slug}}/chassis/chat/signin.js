// Signing in with an OpenID provider: authorization code flow with PKCE, as a public client.
// What it gives is only in the tab's own storage, never in an address of ours.
// https://www.rfc-editor.org/rfc/rfc9700 and https://openid.net/specs/openid-connect-core-1_0.html

import { json } from "./elements.js";
import { Problem } from "./problems.js";
import { read, request } from "./request.js";

const SESSION = "session"; // the tokens of who is signed in
const PENDING = "sign-in"; // what must be known again when the person comes back from the provider
const REFUSED = ""; // a refresh token that doesn't count any more
const EARLY = 30; // seconds before the end of a token that it is renewed
const LEAVING = 20_000; // milliseconds that the browser may need to get to another page

const TELL = "Sign in again. If that doesn't help, tell whoever runs the service.";
const AWAY = {
  what: "You can't sign in right now: the sign-in service can't be reached.",
  hint: "Try again in a while, or use an API key.",
};

/** The provider has said no to what it was shown: the same won't work again. */
class Refusal extends Error {}

const away = () => Object.assign(new Problem(AWAY), { isAway: true });
const failed = (what, hint = TELL) => new Problem({ what, hint, action: "sign-in" });

/** The problem of a sign-in that doesn't count, or not any more. */
export function ended() {
  const { until = Infinity, refresh } = session() ?? {};
  const isOver = Date.now() >= until || refresh === REFUSED;
  const what = isOver ? "Your sign-in has ended." : "The service doesn't accept your sign-in.";
  return new Problem({ status: 401, what, hint: TELL, action: "access" });
}

// Where one signs in

let offered = null;

/** Return how to sign in, or null where one can't; fails where that isn't known at the moment. */
export const offer = () => (offered ??= fetchOffer().catch((error) => ((offered = null), Promise.reject(error))));

async function fetchOffer() {
  const response = await request("chat/sign-in");
  if (!response.ok) throw away();
  const found = await read(response);
  return found.client_id ? found : null;
}

/** The page's address, as the provider knows it. */
const home = () => location.origin + location.pathname;

// Who is signed in

const session = () => json(sessionStorage.getItem(SESSION)) ?? null;

/** The access token of who is signed in. */
export const token = () => session()?.access ?? null;

export const forget = () => sessionStorage.removeItem(SESSION);

function keep({ access_token: access, refresh_token: refresh, id_token: id, expires_in: seconds }, before = {}) {
  const life = Number(seconds) || null; // some say nothing: then it lasts until it is refused
  const end = life && { until: Date.now() + life * 1000, renew: Date.now() + (life - Math.min(EARLY, life / 2)) * 1000 };
  const kept = { access, refresh: refresh ?? before.refresh, id: id ?? before.id, ...end };
  sessionStorage.setItem(SESSION, JSON.stringify(kept));
}

/** Return the access token of who is signed in, renewed where it is about to end. */
export async function freshToken() {
  const { refresh: mayRenew, renew } = session() ?? {};
  // Where that doesn't work, the one there is may still do.
  if (mayRenew && Date.now() >= renew) await refresh().catch(() => {});
  return token();
}

let refreshing = null; // one at a time, however many calls wait: many providers take a refresh token only once

/** Renew the access token, and tell whether there is a new one; fails where the provider can't be reached. */
export const refresh = () => (refreshing ??= renewToken().finally(() => (refreshing = null)));

async function renewToken() {
  const before = session();
  if (!before?.refresh) return false;
  const isSame = () => session()?.refresh === before.refresh; // nobody has signed out meanwhile
  try {
    const given = await exchange({ grant_type: "refresh_token", refresh_token: before.refresh });
    if (isSame()) keep(given, before);
    return Boolean(session());
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (isSame()) sessionStorage.setItem(SESSION, JSON.stringify({ ...before, refresh: REFUSED }));
    return false;
  }
}

async function exchange(form) {
  const { token_endpoint: url, client_id, parameters } = (await offer()) ?? {};
  if (!url) throw new Refusal("One can't sign in here any more.");
  // Whose API the token is for, where the provider wants to know (RFC 8707), it wants to know each time.
  const resources = new URLSearchParams(parameters).getAll("resource").map((resource) => ["resource", resource]);
  const body = new URLSearchParams([...Object.entries({ ...form, client_id }), ...resources]);
  const options = { method: "POST", body, headers: { Accept: "application/json" }, credentials: "omit", redirect: "error" };
  const response = await request(url, options).catch(() => Promise.reject(away()));
  const given = await response.json().catch(() => null);
  if (response.ok && typeof given?.access_token === "string") return given;
  if ([400, 401, 403].includes(response.status)) throw new Refusal(String(given?.error));
  throw away();
}

// Going to the provider and coming back

/** Go to the provider. Kept are the `message` and two hashes: `here` to come back to, `next` once one is signed in. */
export async function begin({ message, here, next }) {
  const provider = await offer();
  if (!provider) throw new Problem({ what: "One can't sign in here.", hint: "Use an API key.", action: "" });
  if (!crypto.subtle) {
    const hint = "Open it at its https address, or use an API key.";
    throw new Problem({ what: "You can't sign in on a page without https.", hint, action: "" });
  }
  const [verifier, state, nonce] = [random(), random(), random()];
  const challenge = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
  sessionStorage.setItem(PENDING, JSON.stringify({ verifier, state, nonce, message, here, next }));
  const url = new URL(provider.authorization_endpoint);
  for (const [name, value] of new URLSearchParams(provider.parameters)) url.searchParams.append(name, value);
  // After what a setting adds, which doesn't change what must be.
  await leaveFor(url, {
    response_type: "code",
    client_id: provider.client_id,
    redirect_uri: home(),
    scope: provider.scope,
    state,
    nonce,
    code_challenge: base64url(challenge),
    code_challenge_method: "S256",
  });
}

/**
 * Come back from the provider and tell whether that is where the person comes from; give back the message that was typed.
 * Each answer is used once, whatever it is: nothing here goes to the provider again by itself.
 */
export async function finish(giveBack) {
  const query = new URLSearchParams(location.search);
  const isBack = query.has("state") && (query.has("code") || query.has("error"));
  const pending = json(sessionStorage.getItem(PENDING)) ?? null;
  if (isBack) history.replaceState(null, "", location.pathname + (pending?.here ?? location.hash));
  if (pending?.message) giveBack(pending.message);
  try {
    if (isBack) await accept(query, pending);
    return isBack;
  } finally {
    sessionStorage.removeItem(PENDING);
  }
}

async function accept(query, pending) {
  if (!pending || query.get("state") !== pending.state) {
    throw failed("This sign-in is an old one, or wasn't begun in this tab.", "Sign in again.");
  }
  if (query.get("error") === "access_denied") {
    const hint = "Sign in again, or ask whoever runs the service.";
    throw failed("You are not signed in: the sign-in was cancelled or refused.", hint);
  }
  if (query.has("error")) throw failed(`The sign-in service reports an error: ${wordsOf(query)}.`);
  try {
    const form = { code: query.get("code"), redirect_uri: home(), code_verifier: pending.verifier };
    const given = await exchange({ grant_type: "authorization_code", ...form });
    if (given.id_token && claims(given.id_token)?.nonce !== pending.nonce) throw new Refusal("nonce");
    keep(given);
  } catch (error) {
    if (error instanceof Refusal) throw failed("You are not signed in: the sign-in service didn't complete it.");
    if (!(error instanceof Problem)) throw error;
    const hint = "Sign in again in a while, or use an API key.";
    throw failed("You are not signed in: the sign-in service can't be reached.", hint);
  }
  history.replaceState(null, "", location.pathname + pending.next);
}

const wordsOf = (query) => (query.get("error_description") || query.get("error")).trim().slice(0, 300).replace(/\.$/, "");

/** Forget everything, and sign out at the provider too where it has a page for that. */
export async function signOut() {
  const { id } = session() ?? {};
  sessionStorage.clear();
  const { end_session_endpoint: url, client_id } = (await offer().catch(() => null)) ?? {};
  if (url) await leaveFor(url, { client_id, post_logout_redirect_uri: home(), ...(id && { id_token_hint: id }) });
  location.replace(home());
}

/** Go to another page; done only where the browser doesn't get there. */
function leaveFor(address, parameters) {
  const url = new URL(address);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  // Whoever comes back with the browser's button must not find the page as it was, waiting to leave.
  addEventListener("pageshow", ({ persisted }) => persisted && location.reload());
  location.assign(url);
  return new Promise((resolve) => setTimeout(resolve, LEAVING));
}

const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

/** Read what an ID token says. It came from the provider itself over TLS, so that its signature adds nothing. */
function claims(jwt) {
  try {
    const text = atob(jwt.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return json(new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.charCodeAt(0))));
  } catch {
    return null;
  }
}
