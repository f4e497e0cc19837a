// What goes wrong, in words for people: first what it is, then what to do about it.

const LATER = "Try again in a while.";
const TOO_LONG = { what: "The question is too long for the service.", hint: "Shorten it, or ask in parts." };
const FAILED = {
  what: "Something went wrong in the service.",
  hint: "Try again. If it happens again, tell whoever runs the service: its log says why.",
  isOurs: true,
};

// By status. The words of the service come before `what`, unless ours are better for people who use a page.
const WORDS = {
  400: { what: "The service can't use this request.", hint: "Change the question, or start a new conversation." },
  401: { what: "This API key isn't accepted: it is unknown, revoked or expired.", hint: "Use another key.", isOurs: true },
  403: { what: "This isn't allowed with your API key.", hint: "Use another key, or ask whoever runs the service." },
  404: { what: "The service doesn't know this, or not any more.", hint: "Reload the page." },
  408: { what: "The request took too long to arrive.", hint: "Try again." },
  409: { what: "Something else has changed the conversation meanwhile.", hint: "Reload the page to see what." },
  413: { ...TOO_LONG, isOurs: true },
  422: { what: "The service can't use this question.", hint: "Change it, then try again." },
  429: { what: "There were too many questions in a short time.", hint: LATER },
  500: FAILED,
  502: { what: "The service can't be reached at the moment.", hint: LATER },
  503: { what: "The service isn't ready at the moment.", hint: LATER },
  504: { what: "The answer took too long.", hint: LATER },
};

// What the service tells programs, by the beginning of its words, and what people are told.
const BEGINNINGS = [
  ["There is no conversation", { what: "This conversation is gone.", hint: "", action: "new" }],
  ["There is no agent", { what: "This agent is gone, or your API key isn't for it.", hint: "Choose another agent.", action: "" }],
  ["The conversation", { status: 404, what: "This question was changed meanwhile.", hint: "Reload the page.", action: "reload" }],
  ["Another run of the conversation", { what: "Another answer of this conversation is still being written.", hint: "Wait until it is there, then try again." }],
  ["Another run changed", { what: "The conversation was changed meanwhile, perhaps in another tab.", hint: "Reload the page, then ask again.", action: "reload" }],
  ["This person may not", { what: "You may not use this service any more.", hint: "Ask whoever runs it.", action: "" }],
  ["It was decided already", { what: "This was decided already, perhaps in another tab.", hint: "Reload the page.", action: "reload" }],
  ["The run was cancelled", { what: "The answer was stopped, perhaps in another tab.", hint: "Try again." }],
  ["The run took longer", { what: "The answer took longer than the service allows.", hint: "Ask for less, then try again." }],
];

/** What went wrong; `action` is what is offered: a name in app.js' ACTIONS, or nothing. */
export class Problem extends Error {
  constructor({ status = 0, title, detail, errors, what, hint, action }, retryAfter) {
    const known = WORDS[status] ?? WORDS[Math.floor(status / 100) * 100] ?? {};
    const [, special] = BEGINNINGS.find(([words, { status: only }]) => detail?.startsWith(words) && (only ?? status) === status) ?? [];
    const { what: found = detail && !known.isOurs ? sentence(detail) : known.what ?? sentence(title) } = special ?? inputError(errors) ?? { what };
    const advice = special?.hint ?? inputError(errors)?.hint ?? hint ?? known.hint;
    super([found ?? what, retryAfter ? when(retryAfter) : advice].filter(Boolean).join(" "));
    this.status = status;
    this.action = special?.action ?? action ?? (status === 401 ? "key" : "retry");
  }
}

/** The problem of having no connection. */
export function unreachable() {
  const hint = navigator.onLine ? "Check that it is running, and your connection. Then try again." : "";
  const what = navigator.onLine ? "The service can't be reached." : "You are offline. Try again when you are back.";
  return new Problem({ what, hint });
}

/** Make the problem of an answer, which need not come from the service itself. */
export async function problemOf(response) {
  const document = await response.json().catch(() => null);
  const isProblem = document !== null && typeof document === "object" && !Array.isArray(document);
  const retryAfter = response.headers.get("Retry-After");
  const problem = new Problem({ ...(isProblem && document), status: response.status }, retryAfter);
  problem.isOurs = isProblem;
  return problem;
}

/** Say when to try again, from a number of seconds or a date. */
export function when(retryAfter, now = Date.now()) {
  const text = String(retryAfter).trim();
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Math.ceil(Number(text)) : Math.ceil((Date.parse(text) - now) / 1000);
  if (Number.isNaN(seconds)) return LATER;
  if (seconds <= 1) return "Try again.";
  if (seconds < 100) return `Try again in ${seconds} seconds.`;
  if (seconds < 6000) return `Try again in ${Math.ceil(seconds / 60)} minutes.`;
  const options = { dateStyle: seconds < 43200 ? undefined : "medium", timeStyle: "short" };
  return `Try again at ${new Date(now + seconds * 1000).toLocaleString("en", options)}.`;
}

function inputError(errors) {
  if (!Array.isArray(errors) || !errors.length) return null;
  const [{ at = "", detail = "" }] = errors;
  if (at === "body/input" && /at most/.test(detail)) return TOO_LONG;
  return { what: `The service can't use this: ${sentence(detail)}`, hint: "Change it, then try again." };
}

const sentence = (text) => text && (/[.!?]$/.test(text) ? text : `${text}.`);
