// Files beside a message: chosen, dropped or pasted, uploaded at once, and shown with what was said.

import { call } from "./client.js";
import { h, iconButton, say } from "./elements.js";
import { Problem } from "./problems.js";
import { read } from "./request.js";

const PATIENCE = 300_000; // milliseconds that an upload may take
const PICTURES = /^image\/(png|jpeg|gif|webp)$/;

const tray = document.getElementById("files");
let waiting = []; // {name, media_type, id?, problem?, element, upload}

/** The words that stand for files where nothing was said, as the service says it too. */
export const namesOf = (files) => files.map(({ name, media_type: type }) => `[${name ?? type}]`).join(" ");

const pathOf = ({ id }) => `v1/attachments/${encodeURIComponent(id)}`;

/** Take files along with what is being written. */
export function add(files) {
  for (const file of files) {
    const taken = { name: file.name || "file", media_type: file.type };
    taken.element = chip(taken, file, () => remove(taken));
    taken.upload = upload(taken, file);
    waiting.push(taken);
    tray.append(taken.element);
  }
  show();
}

async function upload(taken, file) {
  taken.element.setAttribute("aria-busy", "true");
  try {
    const query = new URLSearchParams({ name: taken.name });
    const response = await call(`v1/attachments?${query}`, { method: "POST", body: file, patience: PATIENCE });
    const { id, name, media_type, bytes } = await read(response);
    Object.assign(taken, { id, name, media_type, bytes });
    if (waiting.includes(taken)) say(`${name} is attached.`);
    else drop(taken);
  } catch (error) {
    taken.problem = error instanceof Problem ? error.message : "It could not be read.";
    taken.element.classList.add("bad");
    taken.element.append(h("span", { class: "why" }, taken.problem));
    say(`${taken.name}: ${taken.problem}`);
    if (!(error instanceof Problem)) reportError(error);
  } finally {
    taken.element.removeAttribute("aria-busy");
  }
}

function remove(taken) {
  waiting = waiting.filter((other) => other !== taken);
  taken.element.remove();
  if (taken.id) drop(taken);
  show();
  document.getElementById("message").focus();
}

const drop = (taken) => call(pathOf(taken), { method: "DELETE" }).catch(() => {}); // which goes within a day anyway

const show = () => (tray.hidden = waiting.length === 0);

export const isEmpty = () => waiting.length === 0;

/** Take what was added, once all of it is uploaded; null where something isn't, which says so. */
export async function take() {
  await Promise.all(waiting.map(({ upload }) => upload));
  const bad = waiting.find(({ problem }) => problem);
  if (bad) {
    say(`Remove ${bad.name} first: ${bad.problem}`);
    bad.element.querySelector("button").focus();
    return null;
  }
  const files = waiting.map(({ id, name, media_type, bytes }) => ({ id, name, media_type, bytes }));
  clear();
  return files;
}

export function clear() {
  waiting = [];
  tray.replaceChildren();
  show();
}

/** Give back what was taken, to be sent once more. */
export function putBack(files) {
  clear();
  for (const file of files) {
    const taken = { ...file, upload: Promise.resolve() };
    taken.element = chip(taken, null, () => remove(taken));
    waiting.push(taken);
    tray.append(taken.element);
  }
  show();
}

/** Show files with a message that was said. */
export const shownWith = (files) =>
  h("ul", { class: "files", "aria-label": "Files" }, ...files.map((file) => chip(file)));

/** A file by its name, a picture also as such; `blob` is there while it is uploaded. */
function chip(file, blob, remove) {
  const name = file.name ?? file.media_type;
  const label = h("span", { class: "name" }, name);
  const element = h("li", { class: "file", title: name }, label);
  if (PICTURES.test(file.media_type) && (blob || file.id)) picture(element, file, blob);
  if (remove) element.append(iconButton("bin", `Remove “${name}”`, remove, "Remove"));
  else if (file.id) element.append(iconButton("save", `Save “${name}”`, () => save(file, name), "Save"));
  return element;
}

async function load(file) {
  const response = await call(`${pathOf(file)}/content`, { patience: PATIENCE });
  return read(response, "blob");
}

async function picture(element, file, blob) {
  try {
    const image = h("img", { alt: "" });
    const url = URL.createObjectURL(blob ?? (await load(file)));
    image.onload = image.onerror = () => URL.revokeObjectURL(url);
    image.src = url;
    element.prepend(image);
  } catch {
    element.classList.add("bad"); // its name is there
  }
}

async function save(file, name) {
  try {
    const url = URL.createObjectURL(await load(file));
    h("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    say(error instanceof Problem ? error.message : "It could not be loaded.");
  }
}

/** Let the person choose, drop and paste files. */
export function offer() {
  const pick = document.getElementById("pick");
  document.getElementById("attach").onclick = () => pick.click();
  pick.onchange = () => {
    add(pick.files);
    pick.value = "";
    document.getElementById("message").focus();
  };
  document.getElementById("message").addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    add(event.clipboardData.files);
  });
  const isFile = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (on) => document.body.classList.toggle("dropping", on);
  addEventListener("dragover", (event) => isFile(event) && (event.preventDefault(), mark(true)));
  addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || mark(false));
  addEventListener("drop", (event) => {
    mark(false);
    if (!isFile(event)) return;
    event.preventDefault(); // else the browser leaves for the file
    add(event.dataTransfer.files);
  });
}
