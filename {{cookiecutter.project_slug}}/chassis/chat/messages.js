// What was said, as a list: questions, and answers of texts, tool calls and records.

import { approval } from "./approval.js";
import { footer, record, sourcesOf, toolCard, usage } from "./cards.js";
import { copyButton, h, iconButton, json, say } from "./elements.js";
import { thumbs } from "./feedback.js";
import { namesOf, shownWith } from "./files.js";
import { Markdown } from "./markdown.js";

const NEAR = 60; // pixels from the end within which a reader is at the end

const messages = document.getElementById("messages");
const view = document.getElementById("view");
const toEnd = document.getElementById("to-end");
let isAtEnd = true;
let isKept = false;
let top = 0; // where the view was last

// Staying at the end

/** Go to the end, and stay there while `keep` is true and the reader doesn't leave it. */
export function scrollToEnd(keep = isKept) {
  [isKept, isAtEnd] = [keep, true];
  view.scrollTop = view.scrollHeight;
  mark();
}

/** Whether what comes in takes the view along. */
export const keepAtEnd = (keep) => (isKept = keep);

const mark = () => (toEnd.hidden = isAtEnd);

/** Tell a reader who has left the end from an end that has moved on: what came in may be taller than `NEAR`. */
function look() {
  const isNear = view.scrollHeight - view.scrollTop - view.clientHeight < NEAR;
  if (isNear || !isKept || view.scrollTop < top) isAtEnd = isNear;
  top = view.scrollTop;
  mark();
}
view.addEventListener("scroll", look);
new ResizeObserver(() => {
  if (isKept && isAtEnd) view.scrollTop = view.scrollHeight;
  else look();
}).observe(messages);
toEnd.onclick = () => {
  scrollToEnd();
  document.getElementById("message").focus();
};

// Questions

/** Show a question; `edit` is called when it is to be asked in other words. */
export function addQuestion(text, { id, edit, files = [] } = {}) {
  const shown = h("div", { class: "said" }, text || namesOf(files));
  shown.hidden = !text;
  const actions = h("div", { class: "actions" }, copyButton("Copy the question", () => text));
  const list = files.length ? shownWith(files) : null;
  const element = h("article", { class: "question", "aria-label": "You" }, list, shown, actions);
  Object.assign(element, { text, files });
  if (id) element.dataset.id = id;
  if (edit) actions.append(iconButton("pen", "Edit the question", () => edit(element, text), "Edit"));
  messages.append(element);
  return element;
}

/** Let the person change a question in its place. Resolves to the new text, or null. */
export function editQuestion(element, text) {
  return new Promise((resolve) => {
    const box = h("textarea", { "aria-label": "Question", rows: 1 });
    const save = h("button", { type: "button", class: "primary" }, "Save");
    const cancel = h("button", { type: "button" }, "Cancel");
    const form = h("div", { class: "edit" }, box, h("div", { class: "buttons" }, cancel, save));
    const close = (result) => {
      form.remove();
      element.classList.remove("edited");
      element.querySelector('[aria-label="Edit the question"]')?.focus();
      resolve(result);
    };
    box.value = text;
    save.onclick = () => (box.value.trim() || element.files.length) && close(box.value.trim());
    cancel.onclick = () => close(null);
    onEnter(box, save.onclick);
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      cancel.onclick();
    });
    element.classList.add("edited");
    element.append(form);
    grows(box);
    box.focus();
  });
}

/** Make Enter send; with Shift it is a new line, and a word that is being composed ends with it. */
export function onEnter(box, send) {
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    send();
  });
}

/** Make a box as high as its text, up to what style.css allows. */
export function grows(box) {
  const fit = () => {
    box.style.height = "auto";
    box.style.height = `${box.scrollHeight + box.offsetHeight - box.clientHeight}px`;
  };
  box.addEventListener("input", fit);
  fit();
}

/** Take a message and all after it out of the list. */
export function cutFrom(element) {
  while (element) {
    const next = element.nextElementSibling;
    element.remove();
    element = next;
  }
}

export const clear = () => messages.replaceChildren();
export const questions = () => [...messages.querySelectorAll(":scope > .question")];

// Answers

/** An answer: texts, tool calls, and at last what it took. */
export class Answer {
  constructor(name) {
    Object.assign(this, { text: null, source: [], calls: new Map(), sources: [], frame: 0, written: "" });
    this.body = h("div", { class: "body" });
    this.actions = h("div", { class: "actions" });
    this.element = h("article", { class: "answer", "aria-label": name }, this.body, this.actions);
    messages.append(this.element);
  }

  /** Show that something is to come, until it does. */
  wait() {
    this.waiting = h("p", { class: "waiting", "aria-hidden": "true" }, h("span"), h("span"), h("span"));
    this.body.append(this.waiting);
  }

  /** Add what isn't part of the text before it. */
  add(element) {
    this.draw();
    this.waiting?.remove();
    [this.text, this.written] = [null, ""];
    this.body.append(element);
    return element;
  }

  addText(text) {
    this.source.push(text);
    return this.add(new Markdown(text).element);
  }

  addRecord(value) {
    this.source.push(typeof value === "string" ? value : JSON.stringify(value, null, 2));
    return this.add(typeof value === "string" ? new Markdown(value).element : record(value));
  }

  write(delta) {
    this.written += delta;
    // Markdown is read anew from the whole text, so at most once a frame.
    this.frame ||= requestAnimationFrame(() => this.draw(true));
  }

  draw(more = false) {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.written.trim()) return;
    this.waiting?.remove();
    if (!this.text) {
      this.text = new Markdown();
      this.at = this.source.push("") - 1;
      this.body.append(this.text.element);
    }
    this.source[this.at] = this.written;
    if (more || this.text.source !== this.written || this.text.more) this.text.set(this.written, { more });
    this.text.more = more;
  }

  call(call) {
    this.calls.set(call.id, { ...call, element: this.add(toolCard(call)) });
    say(`Using ${call.name}`);
  }

  result({ id, content }) {
    const call = this.calls.get(id);
    if (!call) return;
    this.renew(call, toolCard({ ...call, content }));
    this.calls.delete(id);
    this.sources.push(...sourcesOf({ ...call, content }));
  }

  /** Ask whether calls may be made. */
  ask(calls, decide) {
    for (const { id } of calls) {
      this.calls.get(id)?.element.remove();
      this.calls.delete(id);
    }
    this.add(approval(calls, decide));
    say(`Your approval is needed: ${calls.map(({ name }) => name).join(", ")}`);
  }

  renew(call, card) {
    card.open = call.element.open;
    const hadFocus = call.element.contains(document.activeElement);
    call.element.replaceWith(card);
    call.element = card;
    if (hadFocus) card.querySelector("summary").focus();
  }

  end({ output, usage: used, model }) {
    this.draw();
    if (typeof output !== "string") {
      // Where the record was written as text, it takes that text's place.
      if (this.text && json(this.written.replace(/^\s*```\w*\n|```\s*$/g, "")) !== undefined) {
        this.text.element.remove();
        this.source.pop();
      }
      this.addRecord(output);
    } else if (!this.text && output.trim()) this.addText(output);
    this.add(footer(this.sources, `${usage(used)} · ${model}`));
    say(typeof output === "string" ? output : JSON.stringify(output));
  }

  break(note) {
    this.draw();
    this.waiting?.remove();
    for (const call of this.calls.values()) this.renew(call, toolCard(call, true));
    this.calls.clear();
    if (note) this.add(footer(this.sources, note));
  }

  /** Show what went wrong, and what can be done at once. */
  fail(message, label, action) {
    const error = h("div", { class: "error" }, h("p", {}, message));
    if (label) {
      const button = h("button", { type: "button" }, label);
      button.onclick = () => {
        error.remove();
        action();
      };
      error.append(button);
    }
    this.draw();
    this.waiting?.remove();
    // Beside what was said, to which more may yet come.
    this.element.append(error);
  }

  /** Offer to copy what was said, and to say what one thinks of it. */
  close() {
    const text = () => this.source.join("\n\n").trim();
    if (!text()) return;
    this.actions.replaceChildren(copyButton("Copy the answer", text));
    if (this.run) this.actions.append(...thumbs(this.run, this.element));
  }

  /** Offer another answer. */
  offerAgain(again) {
    const button = iconButton("again", "Answer again", again);
    button.classList.add("again");
    this.actions.append(button);
  }
}

/** Show a stored conversation, without the calls that are still open. Returns its last answer and question. */
export function showHistory(said, { name, edit, open = [] }) {
  const results = new Map(said.filter((m) => m.role === "tool").map((m) => [m.tool_call_id, m.content]));
  const outputs = new Set(said.filter((m) => m.is_output).map((m) => m.tool_name));
  let [answer, question] = [null, null];
  const endTurn = () => {
    if (answer?.sources.length) answer.add(footer(answer.sources, ""));
    answer?.close();
  };
  for (const message of said) {
    const { role, content, tool_name: tool, tool_call_id: id } = message;
    if (role === "user") {
      endTurn();
      answer = null;
      const files = message.attachments ?? [];
      const text = files.length && content === namesOf(files) ? "" : content;
      // What is attached but isn't kept here would get lost.
      question = addQuestion(text, { files, ...(files.every(({ id }) => id) && { id: message.id, edit }) });
    }
    if (role !== "assistant") continue;
    answer ??= new Answer(name);
    answer.run ??= message.run_id;
    const isOutputTool = tool && (outputs.has(tool) || tool.startsWith("final_result"));
    if (message.is_output) answer.addRecord(json(content));
    else if (isOutputTool && results.has(id) && !outputs.has(tool)) answer.addRecord(json(content));
    else if (open.some((call) => call.id === id)) continue; // it is asked about below
    else if (tool && !isOutputTool) {
      const call = { name: tool, arguments: json(content), content: results.get(id) };
      answer.add(toolCard(call, true));
      answer.sources.push(...sourcesOf(call));
    } else if (!tool && content.trim()) answer.addText(content);
  }
  endTurn();
  return { answer, question };
}
