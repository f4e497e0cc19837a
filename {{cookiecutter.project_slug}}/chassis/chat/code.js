// Blocks of code: their language, colours, and a button to copy them.

import { copyButton, h, scrolling } from "./elements.js";

const LONG = 5000; // characters, from which on colours wait for the end
let colours = null; // the library, once some code has needed it

/** Show a block of code; while it is open there is more to come. */
export function codeBlock(text, info = "", open = false) {
  const language = (info ?? "").trim().split(/[\s{,]/)[0];
  const code = h("code", { "data-language": language.toLowerCase() });
  const label = language ? `Code, ${language}` : "Code";
  const box = scrolling("pre", label, {}, code);
  const head = h("figcaption", {}, h("span", {}, language || "text"), copyButton("Copy code", () => code.textContent));
  const figure = h("figure", { class: "code" }, head, box);
  grow(figure, text, open);
  return figure;
}

/** Show more of a block that is there. */
export function grow(figure, text, open) {
  const code = figure.querySelector("pre code");
  if (code.textContent !== text) code.textContent = text;
  if (code.dataset.language && !(open && text.length > LONG)) paint(code);
}

async function paint(code) {
  if (!colours) {
    const loaded = await import("./highlight-11.12.0.js").catch(() => null); // it is readable without
    if (!loaded) return;
    colours = loaded.default;
  }
  const { language } = code.dataset;
  if (!colours.getLanguage(language)) return;
  // The library escapes the text, and adds nothing but spans with classes.
  code.innerHTML = colours.highlight(code.textContent, { language, ignoreIllegals: true }).value;
}
