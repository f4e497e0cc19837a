// How tool calls, sources, records and usage look. What others wrote is only ever set as text, so that
// the HTML which the component gets holds no tag but ours.

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
  const empty = isObject(value) && !Object.keys(value).length;
  return empty ? [] : [h("p", { class: "label" }, title), isObject(value) ? record(value) : h("pre", {}, String(value))];
}

/** A typed record as a table, one field a row. */
export function record(value) {
  const rows = Object.entries(value).map(([name, field]) =>
    h("tr", {}, h("th", { scope: "row" }, words(name)), h("td", {}, cell(field))),
  );
  return h("table", { class: "record" }, h("tbody", {}, ...rows));
}

function cell(value) {
  if (Array.isArray(value) && !value.some(isObject)) return value.join(", ") || "–";
  return isObject(value) ? record(value) : String(value ?? "–");
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
