// A run's events, over as many connections as it takes.

import { call } from "./client.js";
import { Problem } from "./problems.js";

const PAUSES = [0.5, 1, 2, 4, 8, 15]; // seconds before each attempt to reconnect
const PING = 15; // seconds between signs of life, unless the service says so

/** What is asked, and how much of the answer is there; `wake` ends a pause. */
export const question = (asked) => ({
  ...asked,
  last: "",
  // The same key each time: it is one run, however often it must be sent.
  key: Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-"),
  wake() {},
});

/**
 * Start a run, or go on with one, and yield its events as {name, data}.
 * When the connection is lost it yields {name: "lost", seconds} before it pauses, then {name: "back"}.
 */
export async function* follow(asked, signal) {
  for (let losses = 0, isLost = false; ; ) {
    const line = new Line(signal);
    try {
      const response = await open(asked, line.signal);
      line.expect(Number(response.headers.get("X-Ping-Seconds")) || PING);
      if (isLost) yield { name: "back" };
      isLost = false;
      for await (const event of parse(response.body, (chunks) => (line.heard(), chunks > 1 && (losses = 0)))) {
        losses = 0;
        asked.last = event.id || asked.last;
        if (event.name === "run") asked.run = event.data.run_id;
        yield event;
        if (["done", "waiting", "error"].includes(event.name)) return;
      }
    } catch (error) {
      if (signal.aborted || (error instanceof Problem && !isPassing(error, asked))) throw error;
    } finally {
      line.close();
    }
    if (signal.aborted) throw signal.reason;
    if (losses === PAUSES.length) throw new Problem({ what: "The connection is lost.", hint: "Your question is still here. Try again." });
    isLost = true;
    const seconds = navigator.onLine ? PAUSES[losses++] : Infinity;
    yield { name: "lost", seconds };
    await pause(asked, seconds, signal);
  }
}

/** Tell whether the same may work in a moment: nobody answers, or the service is being restarted. */
const isPassing = ({ status }, { run }) => status === 0 || (run && status >= 502);

function open({ run, last, agent, decides, decisions, key, ...asked }, signal) {
  const { input, files, conversation, replaces } = asked;
  const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
  if (run) return call(`v1/runs/${run}/events`, { headers, signal });
  return call(decides ? `v1/runs/${decides}/decisions` : `v1/agents/${encodeURIComponent(agent)}/runs`, {
    method: "POST",
    headers: { ...headers, "Idempotency-Key": key },
    body: decides
      ? { decisions }
      : { input, attachments: files?.map(({ id }) => id), conversation_id: conversation, replaces },
    signal,
  });
}

/** One connection, given up when it is silent for too long or the browser is offline. */
class Line {
  constructor(signal) {
    this.control = new AbortController();
    this.signal = AbortSignal.any([signal, this.control.signal]);
    this.giveUp = () => this.control.abort();
    addEventListener("offline", this.giveUp);
  }

  expect(seconds) {
    this.milliseconds = (2 * seconds + 1) * 1000;
    this.heard();
  }

  heard() {
    clearTimeout(this.timer);
    this.timer = setTimeout(this.giveUp, this.milliseconds);
  }

  close() {
    clearTimeout(this.timer);
    removeEventListener("offline", this.giveUp);
    this.giveUp();
  }
}

/** Wait, but no longer than until there is a network again, or the person says so. */
function pause(asked, seconds, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    asked.wake = () => (over.abort(), resolve());
    if (seconds !== Infinity) setTimeout(asked.wake, seconds * 1000);
    addEventListener("online", asked.wake, { signal: over.signal });
    signal.addEventListener("abort", asked.wake, { signal: over.signal });
  });
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
async function* parse(body, onChunk) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let chunks = 1; ; chunks++) {
    const { value, done } = await reader.read();
    if (done) return;
    onChunk(chunks);
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: ?(.*)/s)));
      if (fields.data) yield { id: fields.id, name: fields.event, data: JSON.parse(fields.data) };
    }
  }
}
