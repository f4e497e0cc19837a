// Calls of the API: the key, problems, and event streams that survive a lost connection.

const KEY = "api-key"; // only in the tab's own storage, never in an address
const PAUSES = [0.5, 1, 2, 4, 8, 15]; // seconds before each attempt to reconnect

let askForKey = async () => null;

/** Say how to ask the person for a key; the function gets the problem and returns the key or null. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

const HINTS = {
  409: "Reload the page to see what has changed.",
  413: "Ask with fewer words.",
  429: "Try again in a while.",
  503: "Try again in a while.",
  504: "Try again in a while.",
};

/** What the API answers when something went wrong (RFC 9457), and what to do about it. */
export class Problem extends Error {
  constructor({ title, detail, status }, retryAfter) {
    const hint = retryAfter ? `Try again in ${retryAfter} seconds.` : HINTS[status];
    super([title && `${title}.`, detail, hint].filter(Boolean).join(" "));
    this.status = status;
  }
}

async function problemOf(response) {
  const document = await response.json().catch(() => ({ title: response.statusText }));
  return new Problem({ status: response.status, ...document }, response.headers.get("Retry-After"));
}

/** Call the API and return the response; the person is asked for a key when one is needed. */
export async function call(path, { method = "GET", body, headers, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(KEY);
    const response = await fetch(path, {
      method,
      signal,
      body: body && JSON.stringify(body),
      headers: {
        ...(body && { "Content-Type": "application/json" }),
        ...(key && { Authorization: `Bearer ${key}` }),
        ...headers,
      },
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    const given = await askForKey(key ? problem.message : "");
    if (!given) throw problem;
    sessionStorage.setItem(KEY, given);
  }
}

/** Call the API and return the JSON of its answer. */
export const get = async (path, options) => (await call(path, options)).json();

/**
 * Start a run, or go on with one, and yield its events as {name, data}.
 * After a lost connection it yields {name: "lost"} and goes on where it stopped.
 */
export async function* follow({ agent, input, conversation, run, signal }) {
  const key = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-");
  let [last, ended] = ["", false];
  for (let losses = 0; ; ) {
    try {
      const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
      const response = run
        ? await call(`v1/runs/${run}/events`, { headers, signal })
        : await call(`v1/agents/${encodeURIComponent(agent)}/runs`, {
            method: "POST",
            // The same key each time: it is one run, however often it must be sent.
            headers: { ...headers, "Idempotency-Key": key },
            body: { input, conversation_id: conversation },
            signal,
          });
      for await (const event of parse(response.body)) {
        losses = 0;
        last = event.id || last;
        if (event.name === "run") run = event.data.run_id;
        yield event;
        ended ||= event.name === "done" || event.name === "error";
      }
    } catch (error) {
      if (ended) return;
      const restarting = run && error.status >= 502;
      if (signal.aborted || (error instanceof Problem && !restarting)) throw error;
    }
    if (ended) return;
    if (losses === PAUSES.length) {
      throw new Problem({ title: "The connection is lost", detail: "Is the service running? Reload to see more." });
    }
    yield { name: "lost" };
    await new Promise((resolve) => setTimeout(resolve, PAUSES[losses++] * 1000));
  }
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
async function* parse(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s)));
      if (fields.data) yield { id: fields.id, name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
