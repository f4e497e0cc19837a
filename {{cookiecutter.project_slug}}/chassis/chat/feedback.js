// Thumbs below an answer, and words about one that was no good.

import { call, get } from "./client.js";
import { h, iconButton, say } from "./elements.js";

let given = new Map(); // by the id of the run

/** Find out what was said of a conversation's answers. Where that fails, nothing is shown as given. */
export async function loadFeedback(conversation) {
  const path = `v1/conversations/${encodeURIComponent(conversation)}/feedback`;
  const { feedback } = await get(path).catch(() => ({ feedback: [] }));
  given = new Map(feedback.map((one) => [one.run_id, one]));
}

/** Make the thumbs for a run's answer. A second press takes one back; what can't be saved is said below them. */
export function thumbs(run, below) {
  const note = h("p", { class: "note", role: "alert" });
  const up = iconButton("thumb", "Good answer", () => press("up"));
  const down = iconButton("thumb", "Bad answer", () => press("down"));
  const show = () => {
    up.setAttribute("aria-pressed", given.get(run)?.thumb === "up");
    down.setAttribute("aria-pressed", given.get(run)?.thumb === "down");
  };

  async function save(said) {
    const before = given.get(run);
    said ? given.set(run, said) : given.delete(run);
    show();
    note.remove();
    try {
      await call(`v1/runs/${run}/feedback`, said ? { method: "POST", body: said } : { method: "DELETE" });
      say(said ? "Thank you." : "Taken back.");
      return true;
    } catch (error) {
      before ? given.set(run, before) : given.delete(run);
      show();
      note.textContent = `Not saved. ${error.message}`;
      below.append(note);
      return false;
    }
  }

  async function press(thumb) {
    below.querySelector(".words")?.remove();
    const isTakenBack = given.get(run)?.thumb === thumb;
    if ((await save(isTakenBack ? null : { thumb })) && thumb === "down" && !isTakenBack) askWhy();
  }

  function askWhy() {
    const box = h("textarea", { "aria-label": "What was wrong with it?", placeholder: "What was wrong with it?", rows: 2, maxlength: 2000 });
    const send = h("button", { type: "button", class: "primary" }, "Send");
    const skip = h("button", { type: "button" }, "Skip");
    const form = h("div", { class: "edit words" }, box, h("div", { class: "buttons" }, skip, send));
    const close = () => {
      form.remove();
      down.focus();
    };
    send.onclick = async () => {
      const words = box.value.trim();
      if (!words || (await save({ thumb: "down", words }))) close();
    };
    skip.onclick = close;
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.isComposing) return;
      event.stopPropagation();
      close();
    });
    below.querySelector(".words")?.remove();
    below.append(form);
    box.focus();
  }

  show();
  return [up, down];
}
