// What happens when: choosing an agent and a conversation, asking, streaming, stopping.
// The address holds what is shown: #agent=ID&conversation=ID

import "./deep-chat-2.4.2.js";
import { footer, h, json, record, sourcesOf, toolCard, usage } from "./cards.js";
import { call, follow, get, onKeyNeeded, Problem } from "./client.js";

const RUN = "run"; // the run that this tab waits for, to go on with it after a reload
const $ = (id) => document.getElementById(id);
const state = { agents: [], agent: null, conversation: null, control: null };
const insideStyle = await (await fetch("chat/messages.css")).text();

const say = (text) => ($("status").textContent = text);
const address = (conversation) =>
  `#${new URLSearchParams({ agent: state.agent.id, ...(conversation && { conversation }) })}`;

// deep-chat's Markdown would let any address and image pass, and aligns cells with attributes that our
// Content-Security-Policy forbids. Raw HTML it shows as text.
window.remarkable_plugins = [
  {
    plugin({ inline, renderer }) {
      const isSafe = (url) => /^(https?:|mailto:|#|\/)/i.test(url);
      Object.defineProperty(inline, "validateLink", { get: () => isSafe, set() {} });
      renderer.rules.image = ([...tokens], index) => h("em", {}, `[Image: ${tokens[index].alt}]`).outerHTML;
      renderer.rules.th_open = () => "<th>";
      renderer.rules.td_open = () => "<td>";
    },
  },
];

// Dialogs

/** Ask for a text, or only whether to go on where there is no label; null is a no. */
function ask({ title, text = "", label, value = "", type = "text", ok, danger = false }) {
  const [dialog, field, button] = [$("ask"), $("ask-field"), $("ask-ok")];
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-label").hidden = !label;
  $("ask-label").firstElementChild.textContent = label;
  Object.assign(field, { value, type, required: Boolean(label), disabled: !label });
  button.textContent = ok;
  button.classList.toggle("danger", danger);
  dialog.returnValue = "";
  dialog.showModal();
  if (label) field.select();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue ? field.value.trim() || "ok" : null);
  });
}

let asked = null; // one dialog, however many calls need the key
onKeyNeeded((refusal) => {
  const text = refusal || "The service asks for one. It is kept in this tab only, until you close it.";
  asked ??= ask({ title: "API key", text, label: "Key", type: "password", ok: "Use key" });
  return asked.finally(() => (asked = null));
});

/** Do something, and show what went wrong. */
async function attempt(action) {
  $("notice").hidden = true;
  try {
    return await action();
  } catch (error) {
    const lost = "The service can't be reached. Is it running? Reload to try again.";
    $("notice").textContent = error instanceof Problem ? error.message : lost;
    $("notice").hidden = false;
    if (!(error instanceof TypeError || error instanceof Problem)) throw error;
  }
}

// Agents and conversations

function showAgents() {
  const choices = state.agents.map(({ id, name, description }) => {
    const input = h("input", { type: "radio", name: "agent", value: id });
    return h("label", { title: description }, input, h("span", {}, name));
  });
  $("agents").append(...choices);
}

function showAgent() {
  const { id, name, description } = state.agent;
  $("agents").querySelector(`[value="${CSS.escape(id)}"]`).checked = true;
  $("name").textContent = name;
  $("about").textContent = description;
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

function entry({ id, title }) {
  const name = title || "Untitled";
  const button = (icon, label, action) => {
    const made = h("button", { class: "icon", type: "button", "aria-label": `${label} “${name}”`, title: label });
    made.innerHTML = `<svg aria-hidden="true"><use href="#icon-${icon}" /></svg>`;
    made.onclick = () => attempt(action);
    return made;
  };
  return h(
    "li",
    { "data-id": id },
    h("a", { href: address(id), title: name }, name),
    button("pen", "Rename", () => rename(id, name)),
    button("bin", "Delete", () => remove(id, name)),
  );
}

function markConversation() {
  let title = "";
  for (const { dataset, firstElementChild: link } of $("conversations").children) {
    const current = dataset.id === state.conversation;
    current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
    if (current) title = `${link.textContent} · `;
  }
  document.title = title + state.agent.name;
}

async function rename(id, name) {
  const title = await ask({ title: "Rename the conversation", label: "Name", value: name, ok: "Rename" });
  if (!title) return;
  await call(`v1/conversations/${encodeURIComponent(id)}`, { method: "PATCH", body: { title } });
  await showConversations();
}

async function remove(id, name) {
  const text = `“${name}” and all that was said in it will be gone for good.`;
  if (!(await ask({ title: "Delete the conversation?", text, ok: "Delete", danger: true }))) return;
  await call(`v1/conversations/${encodeURIComponent(id)}`, { method: "DELETE" });
  say("Deleted.");
  if (id === state.conversation) location.hash = address();
  await showConversations();
}

// What was said

/** Return a stored conversation as messages of the component. */
function historyOf(messages) {
  const results = new Map(messages.filter((m) => m.role === "tool").map((m) => [m.tool_call_id, m.content]));
  const shown = [];
  let sources = [];
  const endTurn = () => {
    if (sources.length) shown.push({ role: "ai", html: footer(sources, "").outerHTML });
    sources = [];
  };
  for (const { role, content, tool_name: name, tool_call_id: id } of messages) {
    if (role === "user") {
      endTurn();
      shown.push({ role: "user", text: content });
    } else if (role === "assistant") {
      const isOutput = !name || name.startsWith("final_result");
      const value = json(content);
      if (!isOutput) {
        const result = { name, arguments: value, content: results.get(id) };
        shown.push({ role: "ai", html: toolCard(result, true).outerHTML });
        sources.push(...sourcesOf(result));
      } else if (value !== null && typeof value === "object") {
        shown.push({ role: "ai", html: record(value).outerHTML });
      } else if (content.trim()) {
        shown.push({ role: "ai", text: content });
      }
    }
  }
  endTurn();
  return shown;
}

/** The answer that is coming in: texts, tool calls, and at last what it took. */
class Turn {
  constructor(chat) {
    Object.assign(this, { chat, text: "", index: null, calls: new Map(), sources: [], frame: 0 });
  }

  push(message) {
    this.chat.addMessage({ role: "ai", ...message });
    return this.chat.getMessages().length - 1;
  }

  /** Add what isn't part of the text before it. */
  add(message) {
    this.draw();
    [this.text, this.index] = ["", null];
    return this.push(message);
  }

  write(delta) {
    this.text += delta;
    // Markdown is made anew from the whole text, so at most once a frame.
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.text.trim()) return;
    if (this.index === null) this.index = this.push({ text: this.text });
    else this.update({ text: this.text }, this.index);
  }

  update(message, index) {
    const box = this.chat.shadowRoot.getElementById("messages");
    const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
    this.chat.updateMessage(message, index);
    if (atEnd) this.chat.scrollToBottom();
  }

  call(call) {
    this.calls.set(call.id, { ...call, index: this.add({ html: toolCard(call).outerHTML }) });
    say(`Using ${call.name}`);
  }

  result({ id, content }) {
    const call = { ...this.calls.get(id), content };
    this.update({ html: toolCard(call).outerHTML }, call.index);
    this.calls.delete(id);
    this.sources.push(...sourcesOf(call));
  }

  end({ output, usage: used, model }) {
    this.draw();
    const said = typeof output === "string" ? output : JSON.stringify(output);
    if (typeof output !== "string") this.add({ html: record(output).outerHTML });
    else if (!this.text && output.trim()) this.add({ text: output });
    this.add({ html: footer(this.sources, `${usage(used)} · ${model}`).outerHTML });
    say(said);
  }

  break(note) {
    this.draw();
    for (const call of this.calls.values()) this.update({ html: toolCard(call, true).outerHTML }, call.index);
    if (note) this.add({ html: footer(this.sources, note).outerHTML });
  }
}

async function answer(chat, input, run, signals) {
  const { signal } = (state.control = new AbortController());
  const { control, agent } = state;
  const turn = new Turn(chat);
  let stopped = false;
  // What comes in is added by us, texts and cards in turn; the component only shows that it goes on.
  signals.onOpen();
  signals.onResponse({ files: [] });
  signals.stopClicked.listener = async () => {
    stopped = true;
    turn.break("Stopped.");
    say("Stopped.");
    if (run) await call(`v1/runs/${run}/cancel`, { method: "POST" }).catch(() => {});
    setTimeout(() => control.abort(), 1000); // by then it has ended by itself
  };
  say(`${agent.name} is answering`);
  try {
    const question = { agent: agent.id, input, conversation: state.conversation, run, signal };
    for await (const { name, data } of follow(question)) {
      if (name === "run") {
        run = data.run_id;
        state.conversation = data.conversation_id;
        sessionStorage.setItem(RUN, JSON.stringify({ id: run, input, conversation: state.conversation }));
        history.replaceState(null, "", address(state.conversation));
      }
      if (stopped) continue;
      if (name === "text") turn.write(data.delta);
      if (name === "tool_call") turn.call(data);
      if (name === "tool_result") turn.result(data);
      if (name === "done") turn.end(data);
      if (name === "lost") say("The connection is lost. Trying again.");
      if (name === "error") throw new Problem(data);
    }
  } catch (error) {
    if (signal.reason === "left") return;
    if (!stopped) {
      turn.break();
      chat.addMessage({ error: error.message });
      say(error.message);
      retype(chat, input);
    }
  }
  signals.onClose();
  if (json(sessionStorage.getItem(RUN))?.id === run) sessionStorage.removeItem(RUN);
  await attempt(() => Promise.all([showConversations(), showUsage()]));
}

async function load() {
  const path = `v1/conversations/${encodeURIComponent(state.conversation)}`;
  return get(`${path}?limit=1000`).catch((error) => {
    if (error.status !== 404) throw error;
  });
}

async function showUsage(loaded) {
  const conversation = loaded ?? (state.conversation && (await load()));
  // A first question that was stopped or failed may leave no conversation.
  if (!conversation && state.conversation) {
    state.conversation = null;
    history.replaceState(null, "", address());
  }
  $("usage").textContent = conversation?.usage?.requests ? usage(conversation.usage) : "";
}

/** Show what the address says. */
async function show() {
  state.control?.abort("left");
  const { hash } = location;
  const wanted = new URLSearchParams(hash.slice(1));
  state.agent = state.agents.find(({ id }) => id === wanted.get("agent")) ?? state.agent ?? state.agents[0];
  state.conversation = wanted.get("conversation");
  showAgent();
  markConversation();
  const saved = json(sessionStorage.getItem(RUN));
  const waiting = saved && saved.conversation === state.conversation && (await isRunning(saved.id)) ? saved : null;
  const loaded = state.conversation && (await load());
  if (state.conversation && !loaded && !waiting) throw new Problem({ title: "This conversation is gone" });
  if (hash !== location.hash) return; // somebody was quicker than the service
  if (!waiting) await showUsage(loaded);
  const chat = newChat(historyOf(loaded?.messages ?? []), waiting);
  $("chat").replaceChildren(chat);
  if ($("side").matches(":popover-open")) $("side").hidePopover();
  // The component renders in two timers of its own, at times in both. What it has after these stays.
  for (const milliseconds of [25, 25]) await new Promise((resolve) => setTimeout(resolve, milliseconds));
  focusInput();
  // The component shows the question, which isn't stored before its answer.
  if (waiting) chat.submitUserMessage({ text: waiting.input });
}

const isRunning = (id) => get(`v1/runs/${id}`).then(({ status }) => status === "running", () => false);

function newChat(history, waiting) {
  const chat = h("deep-chat", {}, h("div", { class: "intro" }, h("h2", {}, state.agent.name), state.agent.description));
  chat.style.fontFamily = "inherit"; // otherwise the component links to a font elsewhere
  const handler = (body, signals) => {
    answer(chat, body.messages.at(-1).text, waiting?.id, signals);
    waiting = null;
  };
  Object.assign(chat, {
    history,
    auxiliaryStyle: insideStyle,
    connect: { stream: true, handler },
    errorMessages: { displayServiceErrorMessages: true },
    textInput: { placeholder: { text: "Message" } },
    submitButtonStyles: {
      position: "inside-end",
      submit: textButton("Send"),
      loading: textButton("…"),
      stop: textButton("Stop"),
    },
  });
  // The component's buttons hear Enter only.
  chat.shadowRoot.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.getAttribute("role") !== "button") return;
    event.preventDefault();
    event.target.click();
  });
  return chat;
}

/** Put a question that failed back, unless another is being typed. */
function retype(chat, text) {
  const box = chat.shadowRoot.getElementById("text-input");
  if (box.textContent) return;
  box.textContent = text;
  box.dispatchEvent(new Event("input"));
}

const textButton = (content) => ({ svg: { content: "" }, text: { content } });
const focusInput = () => $("chat").firstElementChild?.shadowRoot.getElementById("text-input")?.focus();

// Start

$("skip").onclick = focusInput;
$("ask-cancel").onclick = () => $("ask").close();
$("new").onclick = () => {
  if (state.conversation) location.hash = address();
  else attempt(show);
};
$("agents").onchange = ({ target }) => {
  state.agent = state.agents.find(({ id }) => id === target.value);
  history.replaceState(null, "", address(state.conversation));
  if (state.conversation) attempt(async () => (showAgent(), await showConversations()));
  else attempt(show);
};
addEventListener("hashchange", () => attempt(show));
await attempt(async () => {
  state.agents = (await get("v1/agents")).agents;
  showAgents();
  await show();
  await showConversations();
});
