// Formulas: found in Markdown, and shown by the browser as MathML.

import { h, scrolling } from "./elements.js";

let katex = null; // the library, once some text has needed it

// "$5 and $10" are no formula: nothing may touch the word before, a space inside, or a letter or digit after.
const DOLLARS = /^\$(?![\s$])((?:\\[^\n]|[^$\\`\n])*)(?<![\s])\$(?![\w$])/;
const INLINE = [/^\$\$([^$\n]+?)\$\$/, /^\\\[((?:(?!\n\s*\n)[^])+?)\\\]/, /^\\\(((?:(?!\n\s*\n)[^])+?)\\\)/];
const BLOCK = /^ {0,3}(?:\$\$((?:(?!\n\s*\n)[^])+?)\$\$|\\\[((?:(?!\n\s*\n)[^])+?)\\\])[ \t]*(?:\n+|$)/;
const UNFINISHED = /^ {0,3}(?:\$\$|\\\[)((?:(?!\n\s*\n)[^])*)$/;
const PROSE = /^[\d.,]+[kmb]?\s+[a-z]{2,}|^[^\\^_={}]*[a-z]{2,} [a-z]{2,}/i;
const BRACKETED = /[\\^_=+*/<>|-]|^\s*[a-z]\s*$/i;

/** Return what marked needs to find them; the function tells whether the text may go on. */
export function mathExtensions(isGrowing) {
  const inline = {
    name: "math",
    level: "inline",
    start: (source) => source.match(/\$|\\[([]/)?.index,
    tokenizer(source, tokens) {
      const before = tokens.at(-1)?.raw.at(-1) ?? "";
      for (const [at, form] of INLINE.entries()) {
        const [raw, text] = form.exec(source) ?? [];
        if (raw && !PROSE.test(text) && (at !== 1 || BRACKETED.test(text))) {
          return { type: "math", raw, text, isDisplayed: at < 2 };
        }
      }
      const [raw, text] = /[\w$\\]/.test(before) ? [] : (DOLLARS.exec(source) ?? []);
      if (raw && !PROSE.test(text)) return { type: "math", raw, text, isDisplayed: false };
    },
  };
  const block = {
    name: "mathBlock",
    level: "block",
    start: (source) => source.match(/^ {0,3}(?:\$\$|\\\[)/m)?.index,
    tokenizer(source) {
      const [raw, inDollars, inBrackets] = BLOCK.exec(source) ?? [];
      const text = inDollars ?? inBrackets;
      if (raw && (inDollars || BRACKETED.test(text))) return { type: "math", raw, text, isDisplayed: true };
      const [rest, begun] = (isGrowing() && UNFINISHED.exec(source)) || [];
      if (rest) return { type: "math", raw: rest, text: begun, isDisplayed: true, isUnfinished: true };
    },
  };
  return [inline, block];
}

/** Show a formula; what can't be read as one stays as it was written. */
export function math({ text, raw, isDisplayed, isUnfinished }) {
  const source = h("code", {}, isUnfinished ? text.trim() : raw.trim());
  const box = isDisplayed
    ? scrolling("div", "Formula", { class: "math" }, source)
    : h("span", { class: "math" }, source);
  if (!isUnfinished) render(box, text, isDisplayed);
  return box;
}

async function render(box, text, displayMode) {
  if (!katex) {
    // Made for all kinds of loaders: as a module it leaves its one name with the window.
    await import("./katex-0.19.1.js").catch(() => {});
    katex = globalThis.katex;
    if (!katex) return;
  }
  try {
    const html = katex.renderToString(text, { output: "mathml", displayMode, throwOnError: true, maxSize: 20 });
    // Our Content-Security-Policy takes no styles. In a text the library writes a quote as &quot;.
    box.innerHTML = html.replaceAll(/ style="[^"]*"/g, "");
  } catch {
    box.classList.add("broken");
  }
}
