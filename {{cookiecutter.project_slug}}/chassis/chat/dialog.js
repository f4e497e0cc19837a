// The one dialog of the page.

const $ = (id) => document.getElementById(id);

/** Ask for a text, or only whether to go on where there is no label; null is a no. */
export function ask({ title, text = "", label, value = "", type = "text", ok, danger = false }) {
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

$("ask-cancel").onclick = () => $("ask").close();
