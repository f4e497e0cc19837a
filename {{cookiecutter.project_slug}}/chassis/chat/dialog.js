// The one dialog of the page.

const $ = (id) => document.getElementById(id);

/** What `ask` returns when the person wants what is offered in place of the text. */
export const INSTEAD = Symbol("instead");

/** Ask for a text, or only whether to go on where there is no label; null is a no. */
export function ask({ title, text = "", label, value = "", type = "text", ok, instead, danger = false }) {
  const [dialog, field, button, other] = [$("ask"), $("ask-field"), $("ask-ok"), $("ask-instead")];
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-label").hidden = !label;
  $("ask-label").firstElementChild.textContent = label;
  Object.assign(field, { value, type, required: Boolean(label), disabled: !label });
  button.textContent = ok;
  button.classList.toggle("danger", danger);
  button.classList.toggle("primary", !instead);
  other.hidden = !instead;
  other.textContent = instead ?? "";
  dialog.returnValue = "";
  dialog.showModal();
  if (instead) other.focus();
  else if (label) field.select();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      if (dialog.returnValue === "instead") resolve(INSTEAD);
      else resolve(dialog.returnValue ? field.value.trim() || "ok" : null);
    };
  });
}

$("ask-cancel").onclick = () => $("ask").close();
