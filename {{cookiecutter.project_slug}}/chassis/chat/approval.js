// Calls of tools that a person is asked about before they are made.

import { record } from "./cards.js";
import { h, json } from "./elements.js";

/** The calls that wait for a word. `decide` gets a decision on each, once all are there, and this element. */
export function approval(calls, decide) {
  const decisions = new Map();
  const element = h("div", { class: "approvals" });
  const note = (call, decision) => {
    decisions.set(call.id, { id: call.id, ...decision });
    if (decisions.size === calls.length) decide([...decisions.values()], element);
  };
  const cards = calls.map((call) => card(call, (decision) => note(call, decision)));
  const error = h("p", { class: "wrong", role: "alert" });
  element.append(...cards, error);
  /** Say why it can't be done as it was decided, and ask anew. */
  element.refuse = (message) => {
    decisions.clear();
    error.textContent = message;
    for (const shown of cards) shown.reset();
  };
  return element;
}

/** Let people decide, or not while something else is underway or was asked. */
export function letDecide(may) {
  for (const shown of document.querySelectorAll(".approval")) shown.disabled = !may || Boolean(shown.dataset.decided);
}

function card({ name, arguments: args }, note) {
  const before = JSON.stringify(args, null, 2);
  const box = h("textarea", { "aria-label": `Arguments of ${name}`, rows: Math.min(before.split("\n").length, 12), spellcheck: "false" });
  const reason = h("input", { "aria-label": `Why ${name} isn't approved`, placeholder: "Why not (optional)", maxlength: 2000 });
  const approve = h("button", { type: "button", class: "primary" }, "Approve");
  const deny = h("button", { type: "button" }, "Deny");
  const state = h("span", { class: "state" });
  const error = h("p", { class: "wrong", role: "alert" });
  const shown = h(
    "fieldset",
    { class: "approval" },
    h("legend", {}, "Allow ", h("code", {}, name), "?", state),
    ...(Object.keys(args).length ? [record(args)] : []),
    h("details", {}, h("summary", {}, "Change what it is called with"), box, error),
    h("div", { class: "buttons" }, reason, deny, approve),
  );
  const end = (words, decision) => {
    error.textContent = "";
    state.textContent = words;
    shown.dataset.decided = words;
    shown.disabled = true;
    note(decision);
  };
  box.value = before;
  approve.onclick = () => {
    const changed = json(box.value);
    if (changed === null || typeof changed !== "object" || Array.isArray(changed)) {
      error.textContent = "This isn't a JSON object.";
      box.closest("details").open = true;
      box.focus();
      return;
    }
    const isSame = JSON.stringify(changed) === JSON.stringify(args);
    end("approved", { approve: true, ...(!isSame && { arguments: changed }) });
  };
  deny.onclick = () => {
    const why = reason.value.trim();
    end("denied", { approve: false, ...(why && { reason: why }) });
  };
  shown.reset = () => {
    state.textContent = "";
    delete shown.dataset.decided;
    shown.disabled = false;
  };
  return shown;
}
