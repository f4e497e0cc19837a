// What happens when: choosing an agent and a conversation, asking, streaming, stopping.
// The address holds what is shown: #agent=ID&conversation=ID

import { letDecide } from "./approval.js";
import { usage } from "./cards.js";
import { call, get, key, onKeyNeeded } from "./client.js";
import { ask as askPerson, INSTEAD } from "./dialog.js";
import { h, iconButton, json, say } from "./elements.js";
import { loadFeedback } from "./feedback.js";
import * as attached from "./files.js";
import * as shown from "./messages.js";
import { Problem } from "./problems.js";
import { begin, finish, offer, signOut, token } from "./signin.js";
import { follow, question } from "./stream.js";

const RUN = "run"; // the run that this tab waits for, to go on with it after a reload
const $ = (id) => document.getElementById(id);
// `agent` is null where the one that answered in the conversation is gone and no other was chosen; `asked` is the
// question being answered, `failed` the last that wasn't; `left` is the conversation that was open when another
// agent was chosen, and `override` lets that agent go on in it; `isOffered` tells whether one may sign in.
const state = {
  agents: [], agent: null, conversation: null, title: "", control: null, asked: null, failed: null, left: null,
  override: null, isOffered: false,
};

const agentOf = (id) => state.agents.find((agent) => agent.id === id);
const address = (conversation, agent = state.agent?.id) =>
  `#${new URLSearchParams({ ...(agent && { agent }), ...(conversation && { conversation }) })}`;

// What went wrong, and what can be done about it

// "access" is for a call that was refused: the dialog offers a key too. "sign-in" is for a sign-in that has failed.
const ACTIONS = {
  retry: "Try again", key: "Enter the key", access: "Sign in", "sign-in": "Sign in", new: "New conversation",
  reload: "Reload",
};

function actionOf({ action = "retry" }, again) {
  // To try again brings up the dialog where the service asks who calls.
  const signIn = state.agents.length ? () => attempt(toSignIn) : again;
  const reload = () => location.reload();
  return { retry: again, key: again, access: again, "sign-in": signIn, new: startAnew, reload }[action];
}

/** Do something, and show what went wrong. */
async function attempt(action) {
  $("notice").hidden = true;
  try {
    return await action();
  } catch (error) {
    const isKnown = error instanceof Problem;
    $("notice-text").textContent = isKnown ? error.message : "Something went wrong in this page. Reload it.";
    $("notice-action").textContent = isKnown ? (ACTIONS[error.action] ?? "") : ACTIONS.reload;
    $("notice-action").hidden = !$("notice-action").textContent;
    $("notice-action").onclick = actionOf(isKnown ? error : { action: "reload" }, () => attempt(action));
    $("notice").hidden = false;
    if (!isKnown) throw error;
  }
}

// Who calls: somebody who has signed in, or a key

let asked = null; // one dialog, however many calls need it
let isBackInVain = false; // why is said in the notice, which a dialog would hide
onKeyNeeded((refusal) => (isBackInVain ? null : (asked ??= askKey(refusal).finally(() => (asked = null)))));

async function askKey(refusal) {
  const kept = "is kept in this tab only, until you close it.";
  const way = await offer().catch((problem) => problem);
  const isOffered = way && !(way instanceof Error);
  const why = isOffered ? `The service asks who you are. What you give it ${kept}` : `The service asks for one. It ${kept}`;
  const given = await askPerson({
    title: isOffered ? "Sign in" : "API key",
    text: [refusal || why, way?.isAway && way.message].filter(Boolean).join(" "),
    label: isOffered ? "Or use an API key" : "Key",
    type: "password",
    ok: "Use key",
    instead: isOffered ? "Sign in" : undefined,
  });
  if (given === INSTEAD) {
    await beginSignIn();
    return null;
  }
  showAccess(given);
  return given;
}

/** Show what can be changed about who calls. */
function showAccess(given) {
  const isSignedIn = Boolean(token()) && !given;
  const hasKey = !isSignedIn && Boolean(given || key.get());
  $("sign-out").hidden = !isSignedIn;
  $("change-key").hidden = $("forget-key").hidden = !hasKey;
  $("sign-in").hidden = isSignedIn || !state.isOffered;
  $("keys").hidden = !isSignedIn && !hasKey && !state.isOffered;
}

/** Find out whether one may sign in; where it doesn't work just now, whoever tries is told. */
async function showOffer() {
  state.isOffered = Boolean(await offer().catch(({ isAway }) => isAway));
  showAccess();
}

/** Go to sign in, and take along what isn't sent yet. Whoever asked as somebody else leaves that one's conversation. */
function beginSignIn() {
  const { input, run } = state.asked ?? state.failed?.asked ?? {};
  const typed = $("message").value;
  const message = [run || typed.includes(input) ? "" : input, typed].filter(Boolean).join("\n\n");
  const wasSomebodyElse = !token() && (key.get() || state.agents.length);
  return begin({ message, here: location.hash, next: wasSomebodyElse ? address() : location.hash });
}

const toSignIn = () => toShow(beginSignIn);

const toSignOut = () =>
  toShow(() => {
    leave();
    return signOut();
  });

// A question waits for the dialog too, so that it is asked with the key that was given.
const changeKey = () =>
  toShow(async () => {
    const given = await askKey("With another key you see what was asked with that one.");
    if (!given) return;
    key.forget();
    key.set(given);
    history.replaceState(null, "", address());
    await attempt(start);
  });

function forgetKey() {
  key.forget();
  history.replaceState(null, "", location.pathname);
  location.reload();
}

// Agents and conversations

function showAgents() {
  const choices = state.agents.map(({ id, name, description }) => {
    const input = h("input", { type: "radio", name: "agent", value: id });
    return h("label", { title: description }, input, h("span", {}, name));
  });
  $("agents").replaceChildren($("agents").firstElementChild, ...choices);
  const none = h("option", { value: "" }, "Choose an agent");
  $("switch-agent").replaceChildren(none, ...state.agents.map(({ id, name }) => h("option", { value: id }, name)));
}

function showAgent(gone) {
  const { id, name, description } = state.agent ?? { id: "", name: gone, description: "This agent is gone." };
  for (const input of $("agents").querySelectorAll("input")) input.checked = input.value === id;
  $("name").textContent = name;
  $("about").textContent = description;
  $("intro-name").textContent = name;
  $("intro-about").textContent = description;
}

/** Choose an agent: for a new conversation, unless the one that is open has lost its own. */
function choose(id) {
  if (!agentOf(id)) return;
  if (state.conversation && state.agent) {
    state.left = { id: state.conversation, title: state.title };
    state.agent = agentOf(id);
    go(address());
  } else {
    state.agent = agentOf(id);
    if (!state.conversation) history.replaceState(null, "", address());
    showAgent();
    showGoOn();
    $("switch-agent").value = id;
    markConversation();
  }
}

/** Offer to go on with the agent in the conversation that was open before, which is rarely what is meant. */
function showGoOn() {
  const { left, agent } = state;
  $("go-on").hidden = !left || Boolean(state.conversation);
  if (left) $("go-on").textContent = `Go on in “${left.title || "Untitled"}” with ${agent.name} instead`;
}

function goOn() {
  state.override = { conversation: state.left.id, agent: state.agent.id };
  go(address(state.left.id));
}

/** Say who answers from now on, where that isn't who answered before. */
function showSwitch(before) {
  const name = agentOf(before)?.name ?? before;
  const text = state.agent
    ? `${name} answered here so far. From now on ${state.agent.name} does.`
    : `“${before}” answered here. That agent is gone, or your API key isn't for it.`;
  $("switch").hidden = !before || state.agent?.id === before;
  $("switch-text").textContent = text;
  $("switch-label").hidden = Boolean(state.agent);
  $("switch-agent").value = "";
}

async function showConversations(cursor) {
  const query = new URLSearchParams({ limit: 30, ...(cursor && { cursor }) });
  const { conversations, next_cursor } = await get(`v1/conversations?${query}`);
  const focused = document.activeElement;
  const held = cursor ? null : focused.closest("#conversations li");
  const place = held ? [...held.children].indexOf(focused) : 0;
  if (!cursor) $("conversations").replaceChildren();
  $("conversations").append(...conversations.map(entry));
  // Who was in the list stays there.
  if (held) ($("conversations").querySelector(`[data-id="${held.dataset.id}"]`)?.children[place] ?? $("new")).focus();
  $("none").hidden = $("conversations").children.length > 0;
  $("more").hidden = !next_cursor;
  $("more").onclick = () => attempt(() => showConversations(next_cursor));
  markConversation();
}

function entry({ id, title, agent_id: agent }) {
  const name = title || "Untitled";
  const by = agent ? (agentOf(agent)?.name ?? agent) : "";
  const button = (icon, label, action) =>
    iconButton(icon, `${label} “${name}”`, () => attempt(action), label);
  return h(
    "li",
    { "data-id": id },
    h("a", { href: address(id, agent), title: by ? `${name} · ${by}` : name }, name),
    h("span", { class: "agent" }, by),
    button("pen", "Rename", () => rename(id, name)),
    button("bin", "Delete", () => remove(id, name)),
  );
}

function markConversation() {
  state.title = "";
  for (const { dataset, firstElementChild: link } of $("conversations").children) {
    const current = dataset.id === state.conversation;
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    if (current) state.title = link.textContent;
  }
  document.title = [state.title, state.agent?.name ?? "Agents"].filter(Boolean).join(" · ");
}

function startAnew() {
  state.left = null;
  if (new URLSearchParams(location.hash.slice(1)).has("conversation")) go(address());
  else attempt(show);
}

/** Go to another address at once: the event of a changed hash may come after what the person does next. */
function go(hash) {
  history.pushState(null, "", hash);
  attempt(show);
}

async function rename(id, name) {
  const title = await askPerson({ title: "Rename the conversation", label: "Name", value: name, ok: "Rename" });
  if (!title) return;
  await call(`v1/conversations/${encodeURIComponent(id)}`, { method: "PATCH", body: { title } });
  await showConversations();
}

const remove = (id, name) =>
  toShow(async () => {
    const text = `“${name}” and all that was said in it will be gone for good.`;
    if (!(await askPerson({ title: "Delete the conversation?", text, ok: "Delete", danger: true }))) return;
    await call(`v1/conversations/${encodeURIComponent(id)}`, { method: "DELETE" });
    say("Deleted.");
    if (id === state.conversation) startAnew();
    await showConversations();
  });

async function load() {
  const path = `v1/conversations/${encodeURIComponent(state.conversation)}`;
  return get(`${path}?limit=1000`).catch((error) => {
    if (error.status !== 404) throw error;
  });
}

const isRunning = (id) => get(`v1/runs/${id}`).then(({ status }) => status === "running", () => false);

let fetching = null; // what is on its way to be shown: it would wipe away a question that didn't wait for it

function toShow(action) {
  const mine = action().finally(() => fetching === mine && (fetching = null));
  fetching = mine;
  return mine;
}

const start = () => toShow(showAll);
/** Show what the address says. */
const show = () => toShow(showConversation);

async function showConversation() {
  leave();
  const { hash } = location;
  const wanted = new URLSearchParams(hash.slice(1));
  state.conversation = wanted.get("conversation");
  const saved = json(sessionStorage.getItem(RUN));
  let waiting = saved && saved.conversation === state.conversation && (await isRunning(saved.id)) ? saved : null;
  let [loaded] = state.conversation ? await Promise.all([load(), loadFeedback(state.conversation)]) : [];
  if (waiting && !(await isRunning(waiting.id))) {
    // It has ended meanwhile, and may have been stored before or after we looked.
    waiting = null;
    loaded = await load();
  }
  if (hash !== location.hash) return; // somebody was quicker than the service
  const before = loaded?.agent_id;
  const chosen = state.override?.conversation === state.conversation ? state.override.agent : before;
  state.agent = chosen ? (agentOf(chosen) ?? null) : (agentOf(wanted.get("agent")) ?? state.agent ?? state.agents[0]);
  shown.clear();
  const isGone = state.conversation && !loaded && !waiting;
  if (isGone) state.conversation = null;
  if (state.conversation) state.left = null;
  showAgent(before);
  showSwitch(before);
  showGoOn();
  markConversation();
  if ($("side").matches(":popover-open")) $("side").hidePopover();
  if (isGone) throw new Problem({ status: 404, detail: "There is no conversation" });
  const messages = loaded?.messages ?? [];
  const cut = waiting?.replaces ? messages.findIndex(({ id }) => id === waiting.replaces) : -1;
  const name = agentOf(before)?.name ?? before ?? "Answer";
  const asks = waiting ? waiting.decides : loaded?.waiting_run_id;
  const open = asks ? await get(`v1/runs/${asks}`) : null;
  if (hash !== location.hash) return;
  const kept = cut < 0 ? messages : messages.slice(0, cut);
  const last = shown.showHistory(kept, { name, edit, open: open?.calls });
  if (open && !waiting) askApproval(open, last.question, last.answer ?? new shown.Answer(name));
  $("intro").hidden = Boolean(last.question || waiting);
  showUsage(loaded);
  shown.scrollToEnd(Boolean(waiting));
  if (waiting) {
    // The question isn't stored before its answer.
    const { id: run, ...what } = waiting;
    const again = { ...question({ ...what, agent: state.agent?.id ?? before }), run };
    if (what.decides) answer(again, last.question, last.answer ?? new shown.Answer(name));
    else answer(again, shown.addQuestion(what.input, { edit, files: what.files }), new shown.Answer(name));
  } else offerAgain(last);
}

function showUsage(conversation) {
  $("usage").textContent = conversation?.usage?.requests ? usage(conversation.usage) : "";
}

// Asking

/** Ask what is in the message's box. */
async function send() {
  while (fetching) await fetching.catch(() => {}); // who began it says what went wrong
  const input = $("message").value.trim();
  if ((!input && attached.isEmpty()) || state.asked) return;
  if (!state.agents.length) await attempt(start);
  if (!state.agents.length) return;
  if (!state.agent) {
    $("switch-agent").focus();
    say("Choose an agent first.");
    return;
  }
  const files = await attached.take();
  if (!files || state.asked) return files && attached.putBack(files);
  type("");
  await ask(input, undefined, files);
}

/** Ask, at the end or in place of an earlier question and of all that came after it. */
async function ask(input, replaces, files = []) {
  $("notice").hidden = true;
  const { failed } = state;
  state.failed = null;
  if (failed?.asked.replaces) await attempt(show); // what was left out is still there
  else if (failed && failed.asked.input === input) shown.cutFrom(failed.element);
  if (replaces) shown.cutFrom(shown.questions().find(({ dataset }) => dataset.id === replaces));
  $("intro").hidden = true;
  const asked = question({ agent: state.agent.id, input, files, conversation: state.conversation, replaces });
  focusInput();
  await answer(asked, shown.addQuestion(input, { edit, files }), new shown.Answer(state.agent.name));
}

/** Ask about the calls that a run waits for, and go on with what was decided. */
function askApproval({ run_id: decides, agent_id: agent, conversation_id: conversation, calls }, element, shownAnswer) {
  shownAnswer.ask(calls, (decisions, card) => {
    if (state.asked) return card.refuse("Something else is being answered.");
    const asked = question({ agent, input: "", conversation, decides, decisions });
    return answer(Object.assign(asked, { card }), element, shownAnswer);
  });
}

async function edit(element, text) {
  if (state.asked || !element.dataset.id) return;
  const changed = await shown.editQuestion(element, text);
  if (changed !== null && !state.asked && mayAsk()) await ask(changed, element.dataset.id, element.files);
}

function mayAsk() {
  if (fetching) return false;
  if (!state.agent) $("switch-agent").focus();
  return Boolean(state.agent);
}

function offerAgain({ answer: last, question: element }) {
  for (const button of document.querySelectorAll(".again")) button.remove();
  if (!last || !element?.dataset.id) return;
  last.offerAgain(() => {
    if (!state.asked && mayAsk()) ask(element.text, element.dataset.id, element.files);
  });
}

/** Show the answer as it comes. */
async function answer(asked, element, shownAnswer) {
  const { signal } = (state.control = new AbortController());
  const { control } = state;
  let stopped = false;
  busy(asked);
  shownAnswer.wait();
  shown.scrollToEnd(true);
  say(`${agentOf(asked.agent)?.name ?? asked.agent} is answering`);
  $("stop").onclick = async () => {
    if (stopped) return;
    stopped = true;
    shownAnswer.break("Stopped.");
    say("Stopped.");
    focusInput();
    asked.wake();
    if (asked.run) await call(`v1/runs/${asked.run}/cancel`, { method: "POST" }).catch(() => {});
    setTimeout(() => control.abort("stopped"), asked.run ? 1000 : 0); // by then it has ended by itself
  };
  let problem = null;
  try {
    for await (const { name, data, seconds } of follow(asked, signal)) {
      if (name === "run") {
        asked.card?.remove();
        asked.conversation = state.conversation = data.conversation_id;
        shownAnswer.run = data.run_id;
        const { run: id, input, files, conversation, replaces, decides } = asked;
        sessionStorage.setItem(RUN, JSON.stringify({ id, input, files, conversation, replaces, decides }));
        history.replaceState(null, "", address(conversation));
      }
      if (name === "lost") showLost(seconds, asked);
      if (name === "back") hideLost();
      if (stopped) continue;
      if (name === "text") shownAnswer.write(data.delta);
      if (name === "tool_call") shownAnswer.call(data);
      if (name === "tool_result") shownAnswer.result(data);
      if (name === "done") shownAnswer.end(data);
      if (name === "waiting") askApproval(data, element, shownAnswer);
      if (name === "error") throw Object.assign(new Problem(data, data.retry_after), { hasEnded: true });
    }
  } catch (error) {
    if (signal.reason === "left") return;
    if (!stopped) problem = error;
  }
  busy(null);
  if (problem) fail(problem, asked, element, shownAnswer);
  const mayGoOn = problem && asked.run && !problem.hasEnded;
  if (!mayGoOn && json(sessionStorage.getItem(RUN))?.id === asked.run) sessionStorage.removeItem(RUN);
  shownAnswer.close();
  // Without a connection or a key there is no more to be had now, and it has been said.
  if (problem && [0, 401].includes(problem.status)) return;
  await attempt(() => Promise.all([showConversations(), noteTurn(element, shownAnswer)]));
}

/** Show what went wrong with a question, and offer to ask it once more. */
function fail(problem, asked, element, shownAnswer) {
  const mayGoOn = asked.run && !problem.hasEnded;
  if (asked.decides && !mayGoOn) return failDecision(problem, asked, shownAnswer);
  if (!mayGoOn) shownAnswer.break();
  const again = () => {
    if (state.asked) return;
    if ($("message").value === asked.input) {
      type("");
      attached.clear();
    }
    state.failed = null;
    focusInput();
    if (mayGoOn) return answer(asked, element, shownAnswer);
    shownAnswer.element.remove();
    const { agent, input, files, replaces } = asked;
    const anew = question({ agent, input, files, replaces, conversation: state.conversation });
    return answer(anew, element, new shown.Answer(agentOf(agent)?.name ?? agent));
  };
  const known = problem instanceof Problem ? problem : new Problem({ what: "Something went wrong in this page.", hint: "Reload it.", action: "reload" });
  shownAnswer.fail(known.message, ACTIONS[known.action], actionOf(known, again));
  say(known.message);
  state.failed = { asked, element };
  // What was typed isn't lost. In place of an earlier question it would come at the end.
  if (!asked.replaces && !$("message").value && attached.isEmpty()) {
    type(asked.input);
    attached.putBack(asked.files ?? []);
  }
  if (!(problem instanceof Problem)) reportError(problem);
}

/** Say that what was decided can't be done; what has begun can't be decided once more. */
function failDecision({ message }, { run, card }, shownAnswer) {
  shownAnswer.break();
  if (run) shownAnswer.fail(message);
  else card.refuse(message);
  say(message);
}

/** After a turn: what it took, and what its question is called, so that it can be asked anew. */
async function noteTurn(element, last) {
  const { conversation } = state;
  const loaded = conversation && (await load());
  if (state.conversation !== conversation) return; // another one is shown by now
  // A first question that was stopped or failed may leave no conversation.
  if (!loaded && state.conversation) {
    state.conversation = null;
    history.replaceState(null, "", address());
  }
  showUsage(loaded);
  if (!loaded || state.asked) return;
  letDecide(Boolean(loaded.waiting_run_id));
  const stored = loaded.messages.filter(({ role }) => role === "user").reverse();
  const listed = shown.questions().reverse().filter((listed) => listed !== state.failed?.element);
  for (const [at, { id, content }] of stored.entries()) {
    if (listed[at]?.querySelector(".said").textContent !== content) break;
    listed[at].dataset.id = id;
  }
  if (state.failed) return;
  state.override = null;
  showSwitch(loaded.agent_id);
  offerAgain({ answer: last, question: element });
}

// What is underway

function busy(asked) {
  state.asked = asked;
  document.body.toggleAttribute("data-busy", Boolean(asked));
  if (asked) letDecide(false);
  [$("send").hidden, $("stop").hidden] = [Boolean(asked), !asked];
  // What has come in until now is laid out by the next frame.
  const settle = () => requestAnimationFrame(() => state.asked || shown.keepAtEnd(false));
  if (!asked) requestAnimationFrame(settle);
  if (!asked) hideLost();
}

/** Stop showing what comes in; the run goes on. */
function leave() {
  state.control?.abort("left");
  state.failed = null;
  busy(null);
}

let countdown = 0;

function showLost(seconds, asked) {
  const until = Date.now() + seconds * 1000;
  const tick = () => {
    const left = Math.ceil((until - Date.now()) / 1000);
    const how = left > 0 ? `Trying again in ${left} s.` : "Trying again …";
    $("lost-text").textContent =
      seconds === Infinity ? "You are offline. It goes on as soon as you are back." : `The connection is lost. ${how}`;
  };
  if ($("lost").hidden) say("The connection is lost. Trying again.");
  clearInterval(countdown);
  countdown = setInterval(tick, 250);
  tick();
  $("lost").hidden = false;
  $("lost-now").onclick = () => {
    focusInput();
    asked.wake();
  };
}

function hideLost() {
  clearInterval(countdown);
  $("lost").hidden = true;
}

// The message's box

function type(text) {
  $("message").value = text;
  $("message").dispatchEvent(new Event("input"));
}

/** Let the person write; where that would bring up a keyboard on the screen, only if they ask for it. */
const focusInput = () => matchMedia("(pointer: coarse)").matches || $("message").focus();

// Start

async function showAll() {
  const { agents } = await get("v1/agents");
  state.agents = agents;
  showAccess();
  if (!state.agents.length) throw new Problem({ what: "There is no agent that you may ask.", hint: "Ask whoever runs the service." });
  showAgents();
  await Promise.all([showConversation(), showConversations()]);
}

/** Open the page, or come back to it from signing in. */
async function arrive() {
  try {
    if (await finish((message) => $("message").value || type(message))) say("You are signed in.");
  } catch (error) {
    isBackInVain = true;
    await showAll().catch(() => {}); // as far as one may see it without
    throw error;
  } finally {
    isBackInVain = false;
    showOffer();
  }
  await showAll();
}

attached.offer();
shown.grows($("message"));
shown.onEnter($("message"), send);
$("send").onclick = send;
$("skip").onclick = () => $("message").focus();
$("new").onclick = () => (startAnew(), focusInput());
$("go-on").onclick = () => (goOn(), focusInput());
$("sign-in").onclick = () => attempt(toSignIn);
$("sign-out").onclick = () => attempt(toSignOut);
$("change-key").onclick = changeKey;
$("forget-key").onclick = forgetKey;
$("agents").onchange = ({ target }) => choose(target.value);
$("agents").onclick = ({ detail, target }) => {
  // With a pointer the choice is made; with the arrow keys it may go on.
  if (detail && target.matches("input") && $("side").matches(":popover-open")) $("side").hidePopover();
};
$("switch-agent").onchange = ({ target }) => choose(target.value);
$("conversations").onclick = ({ target }) => target.closest("a") && focusInput();
addEventListener("keydown", ({ key: name, isComposing }) => {
  if (name !== "Escape" || isComposing || !state.asked) return;
  if (!$("ask").open && !$("side").matches(":popover-open")) $("stop").onclick();
});
addEventListener("hashchange", () => {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const isOurs = !location.hash || wanted.has("agent") || wanted.has("conversation");
  // A model may write a link to some place in the page.
  if (isOurs) attempt(show);
  else history.replaceState(null, "", address(state.conversation));
});
addEventListener("online", () => {
  if (!$("notice").hidden && $("notice-action").textContent === ACTIONS.retry) $("notice-action").click();
});
focusInput();
await attempt(() => toShow(arrive));
