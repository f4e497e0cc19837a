// Requests that don't wait for ever.

import { unreachable } from "./problems.js";

const PATIENCE = 20_000; // milliseconds until an answer must have begun

/** Fetch, but don't wait for ever: a connection may be dead without anybody having said so. */
export async function request(url, { signal, patience = PATIENCE, ...options } = {}) {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), patience);
  try {
    return await fetch(url, { ...options, signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal });
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  } finally {
    clearTimeout(timer);
  }
}

/** Read the body of an answer, which may be cut off too, or be somebody else's: a hotel's page, say. */
export async function read(response, as = "json") {
  try {
    return await response[as]();
  } catch {
    throw unreachable();
  }
}
