// Markdown as elements. Of what a model writes only text gets into the page: never its HTML, styles or images.

import { h, scrolling } from "./elements.js";
import { codeBlock, grow } from "./code.js";
import { math, mathExtensions } from "./math.js";
import { Marked } from "./marked-18.2.1.js";

let growing = false; // whether more of the text that is read may come
const marked = new Marked({ gfm: true, breaks: true, extensions: mathExtensions(() => growing) });

/** A text that is shown as Markdown, and may grow: what is there already stays as it is. */
export class Markdown {
  constructor(text) {
    this.element = h("div", { class: "text" });
    this.blocks = [];
    this.done = { source: "", count: 0 }; // what more text can't change: all blocks but the last
    if (text !== undefined) this.set(text);
  }

  set(text, { more = false } = {}) {
    this.source = text;
    growing = more;
    if (!more || !text.startsWith(this.done.source)) this.done = { source: "", count: 0 };
    const { source, count } = this.done;
    const rest = text.slice(source.length);
    const tokens = marked.lexer(more ? settled(rest) : rest);
    // A reference gives links to texts before it.
    if (!more && tokens.some(({ type }) => type === "def")) this.cut(0);
    const shown = tokens.filter(({ type }) => type !== "space" && type !== "def");
    shown.forEach((token, at) => this.put(count + at, token, more && at === shown.length - 1));
    this.cut(count + shown.length);
    if (more && shown.length > 1) {
      const raw = tokens.slice(0, tokens.indexOf(shown.at(-1))).map((token) => token.raw);
      this.done = { source: source + raw.join(""), count: count + shown.length - 1 };
    }
  }

  put(at, token, open) {
    const old = this.blocks[at];
    if (old?.token.raw === token.raw && old.token.type === token.type && old.open === open) return;
    const isMore = old?.token.type === "code" && token.type === "code" && old.token.lang === token.lang;
    if (isMore) {
      grow(old.node, token.text, open);
      Object.assign(old, { token, open });
      return;
    }
    const node = block(token, open);
    if (old) {
      const left = old.node.scrollLeft;
      old.node.replaceWith(node);
      node.scrollLeft = left;
    } else this.element.append(node);
    this.blocks[at] = { token, open, node };
  }

  cut(length) {
    for (const { node } of this.blocks.splice(length)) node.remove();
  }
}

/** Leave out at the end of a text that grows what may yet become something else, and begin a table with its head. */
function settled(text) {
  if ((text.match(/^ {0,3}(?:```|~~~)/gm) ?? []).length % 2) return text;
  const head = /(?<=^|\n\n)(\|[^\n]*)(?:\n[|:\s-]*)?$/.exec(text);
  if (head) {
    const row = head[1].trimEnd().replace(/\|$/, "");
    const columns = row.split(/(?<!\\)\|/).length - 1;
    return `${text.slice(0, head.index)}${row}|\n|${"---|".repeat(columns)}`;
  }
  return text.replace(/(^|\n)[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+\[[ xX]?\]?|[-=*_+>#`~|]+|\d+[.)]?)[ \t]*$/, "$1");
}

function block(token, open) {
  switch (token.type) {
    case "heading":
      return h(`h${Math.min(token.depth + 2, 6)}`, {}, ...inlines(token.tokens));
    case "paragraph":
      return h("p", {}, ...inlines(token.tokens));
    case "blockquote":
      return h("blockquote", {}, ...blocks(token.tokens));
    case "hr":
      return h("hr");
    case "list":
      return list(token);
    case "table":
      return table(token);
    case "code":
      return codeBlock(token.text, token.lang, open);
    case "math":
      return math(token);
    case "html":
      return h("p", { class: "raw" }, token.raw.trimEnd());
    default:
      return h("p", {}, ...inline(token));
  }
}

const blocks = (tokens) => tokens.flatMap((token) => within(token));

/** Inside of lists and quotes a text need not be a paragraph. */
function within(token) {
  if (token.type === "space" || token.type === "def") return [];
  if (token.type === "text" || token.type === "checkbox") return inline(token);
  return [block(token, false)];
}

function list({ ordered, start, items }) {
  const made = items.map((item) => h("li", item.task ? { class: "task" } : {}, ...blocks(item.tokens)));
  return h(ordered ? "ol" : "ul", ordered && start !== 1 ? { start } : {}, ...made);
}

function table({ header, rows }) {
  const cell = (tag) => ({ tokens, align }) => h(tag, align ? { class: align } : {}, ...inlines(tokens));
  const head = h("thead", {}, h("tr", {}, ...header.map(cell("th"))));
  const body = h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map(cell("td")))));
  return scrolling("div", "Table", { class: "table" }, h("table", {}, head, body));
}

const inlines = (tokens) => tokens.flatMap(inline);

function inline(token) {
  switch (token.type) {
    case "strong":
    case "em":
    case "del":
      return [h(token.type, {}, ...inlines(token.tokens))];
    case "codespan":
      return [h("code", {}, token.text)];
    case "br":
      return [h("br")];
    case "checkbox":
      return [checkbox(token.checked)];
    case "link":
      return [link(token)];
    case "image":
      return [h("em", {}, `[Image: ${decoded(token.text)}]`)];
    case "math":
      return [math(token)];
    case "html":
      return [/^<br\s*\/?>$/i.test(token.raw) ? h("br") : token.raw];
    case "escape":
      return [token.text];
    default:
      return token.tokens ? inlines(token.tokens) : [decoded(token.text ?? token.raw)];
  }
}

function checkbox(checked) {
  const label = checked ? "Done" : "To do";
  return h("input", { type: "checkbox", disabled: "", "aria-label": label, ...(checked && { checked: "" }) });
}

function link({ href, raw, tokens }) {
  if (!/^(https?:|mailto:|#|\/)/i.test(href)) return raw;
  const where = href.startsWith("#") ? {} : { target: "_blank", rel: "noopener noreferrer" };
  return h("a", { href, ...where }, ...inlines(tokens));
}

/** Read &amp; and the like, which marked leaves to whoever makes HTML. */
function decoded(text) {
  if (!text.includes("&")) return text;
  const box = document.createElement("textarea"); // holds text only, whatever it is given
  box.innerHTML = text.replaceAll("<", "&lt;");
  return box.value;
}
