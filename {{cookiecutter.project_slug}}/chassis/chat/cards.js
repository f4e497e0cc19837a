// How tool calls, sources, records and usage look.

import { h, json, scrolling } from "./elements.js";

const isObject = (value) => value !== null && typeof value === "object";
const words = (name) => name.replaceAll("_", " ");
const number = (value) => value.toLocaleString("en");

/** A call of a tool, and its result once that is there. */
export function toolCard({ name, arguments: args, content }, stopped) {
  const running = content === undefined;
  const state = running ? (stopped ? "no result" : "working…") : "done";
  return h(
    "details",
    { class: running && !stopped ? "tool running" : "tool" },
    h("summary", {}, h("code", {}, name), h("span", { class: "state" }, state)),
    ...section("Asked with", args),
    ...(running ? [] : section("Result", json(content) ?? content)),
  );
}

function section(title, value) {
  if (isObject(value) && !Object.keys(value).length) return [];
  const shown = isObject(value) ? record(value) : h("pre", { tabindex: 0 }, String(value));
  return [h("p", { class: "label" }, title), shown];
}

/** A typed output: one field a row where it has fields. */
export function record(value) {
  const shown = isObject(value) && !Array.isArray(value) ? fields(value) : h("div", { class: "record" }, cell(value));
  return scrolling("div", "Record", { class: "table" }, shown);
}

function fields(value) {
  const rows = Object.entries(value).map(([name, field]) =>
    h("tr", {}, h("th", { scope: "row" }, words(name)), h("td", {}, cell(field))),
  );
  return h("table", { class: "record" }, h("tbody", {}, ...rows));
}

function cell(value) {
  if (value === null || value === undefined || value === "") return "–";
  if (!isObject(value)) return typeof value === "boolean" ? (value ? "yes" : "no") : String(value);
  if (!Object.keys(value).length) return "–";
  if (!Array.isArray(value)) return fields(value);
  const isShort = value.every((item) => !isObject(item) && !/[,\n]/.test(String(item)));
  return isShort ? value.map(cell).join(", ") : h("ul", {}, ...value.map((item) => h("li", {}, cell(item))));
}

/** What is shown below an answer: where it comes from, and what it took. */
export function footer(sources, note) {
  const items = sources.map(({ source, title, text, score }) =>
    h(
      "li",
      {},
      h(
        "details",
        {},
        h("summary", {}, title || source),
        h("p", {}, text),
        h("p", { class: "note" }, link(source), typeof score === "number" ? ` · ${score.toFixed(2)}` : null),
      ),
    ),
  );
  const list = items.length ? [h("p", { class: "label" }, "Sources"), h("ol", {}, ...items)] : [];
  return h("div", { class: "footer" }, ...list, h("p", { class: "note" }, note));
}

function link(source) {
  const web = /^https?:\/\//.test(source);
  return web ? h("a", { href: source, target: "_blank", rel: "noopener noreferrer" }, source) : source;
}

/** The sources in the result of a search, none in that of another tool. */
export function sourcesOf({ name, content }) {
  const found = name === "search_documents" ? json(content) : undefined;
  return Array.isArray(found) ? found.filter(isObject) : [];
}

/** What was used, in words: "1,234 tokens · 2 requests". */
export function usage({ input_tokens = 0, output_tokens = 0, requests = 0, cost }) {
  const parts = [`${number(input_tokens + output_tokens)} tokens`];
  if (requests) parts.push(`${number(requests)} ${requests === 1 ? "request" : "requests"}`);
  if (cost) parts.push(`$${Number(cost).toFixed(4)}`);
  return parts.join(" · ");
}
