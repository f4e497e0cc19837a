// Elements, and the buttons that copy. What others wrote is only ever set as text.

/** Make an element with attributes and children; texts are texts. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Return the JSON value, or undefined for anything else. */
export function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Make an element that scrolls sideways, which the keyboard must reach for that. */
export const scrolling = (tag, label, attributes, ...children) =>
  h(tag, { ...attributes, tabindex: 0, role: "region", "aria-label": label }, ...children);

/** Make a button with one of the page's icons. */
export function iconButton(icon, label, action, title = label) {
  const button = h("button", { class: "icon", type: "button", "aria-label": label, title });
  button.innerHTML = `<svg aria-hidden="true"><use href="#icon-${icon}" /></svg>`;
  button.onclick = action;
  return button;
}

/** Tell those who don't see the page what has happened. */
export const say = (text) => (document.getElementById("status").textContent = text);

/** Make a button that copies what the function returns, and says so. */
export function copyButton(label, textOf) {
  const word = h("span", {}, "Copy");
  const button = iconButton("copy", label);
  button.className = "copy";
  button.append(word);
  let timer;
  button.onclick = async () => {
    const done = (await copy(textOf(), button)) ? "Copied" : "Not copied";
    word.textContent = done;
    button.setAttribute("aria-label", done);
    say(done);
    clearTimeout(timer);
    timer = setTimeout(() => {
      word.textContent = "Copy";
      button.setAttribute("aria-label", label);
    }, 2000);
  };
  return button;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // There is no clipboard for pages without TLS, or the browser asks and the person says no.
    const box = h("textarea", { class: "unseen", readonly: "" });
    box.value = text;
    button.after(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    button.focus();
    return done;
  }
}
