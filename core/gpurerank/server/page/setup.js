// What a person chose: passages, method, models, key.

import { element } from "./columns.js";
import { CANDIDATES, QUESTIONS, TEXT } from "./example.js";
import { clear, fail } from "./failure.js";
import { read, split } from "./passages.js";
import { corpus, Refused, state } from "./server.js";

const at = (id) => document.getElementById(id);
const method = (value) => document.querySelector(`input[name=method][value=${value}]`);

let demo = [];
// Asked for before it is chosen, as it takes a second to read.
let fetched = null;
let files = [];

export const chosen = (name) => document.querySelector(`input[name=${name}]:checked`).value;
export const query = () => at("query").value.trim();
export const key = () => at("key").value;

/** The passages as they are chosen now; raises where a JSON line is wrong. */
export function passages() {
  if (chosen("source") === "demo") return demo;
  return [...pasted().passages, ...files.flatMap((file) => file.passages)];
}

/** What /v1/rank is asked, by a method. */
export function request(by, found) {
  const model = at(by === "bi-encoder" ? "embedder" : "reranker").value || null;
  const asked = { query: query(), passages: found, method: by, model };
  return by === "cascade" ? { ...asked, candidates: candidates() } : asked;
}

/** Adapts the choices to what the server has; its models are known once the key is. */
export async function adapt() {
  const { models, needs_key: needsKey, demo: hasDemo } = await state(key());
  at("key-field").hidden = !needsKey;
  at("sources").hidden = !hasDemo;
  // A failure is told where the corpus is chosen.
  if (hasDemo) (fetched ??= corpus()).catch(() => null);
  if (models) adaptMethods(models);
}

function adaptMethods({ rerankers, embedders }) {
  fill("reranker", rerankers);
  fill("embedder", embedders);
  const [cross, bi] = [rerankers.length > 0, embedders.length > 0];
  method("cross-encoder").disabled = !cross;
  method("bi-encoder").disabled = !bi;
  method("cascade").disabled = at("compare").hidden = !(cross && bi);
  if (!cross) method("bi-encoder").checked = true;
  at("before").querySelector("[value=bi-encoder]").disabled = !bi;
  if (!bi) at("before").value = "input";
}

/** Sets the example up and listens; `ask` is called when an example question is chosen. */
export function prepare(ask) {
  at("key").onchange = () => adapt().catch(fail);
  at("try").onclick = () => {
    at("own-source").checked = true;
    choose(ask);
    loadExample(ask);
    ask();
  };
  at("example").onclick = () => loadExample(ask);
  at("text").oninput = at("split").onchange = count;
  at("files").onchange = async () => {
    await addFiles([...at("files").files]);
    at("files").value = "";
  };
  at("text").ondragover = (event) => event.preventDefault();
  at("text").ondrop = (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    addFiles([...event.dataTransfer.files]);
  };
  for (const radio of document.querySelectorAll("input[name=source]")) radio.onchange = () => choose(ask);
  loadExample(ask);
}

const pasted = () => split(at("text").value, at("split").value);

function candidates() {
  const value = at("candidates").valueAsNumber;
  if (Number.isInteger(value) && value >= 1) return value;
  throw new Refused("The number of candidates is not a whole number of 1 or more.", "candidates");
}

function fill(select, names) {
  at(select).replaceChildren(...names.map((name) => element("option", "", name)));
  at(`${select}-field`).hidden = names.length < 2;
}

function loadExample(ask) {
  at("text").value = TEXT;
  at("split").value = "auto";
  suggest("own", ask);
  count();
}

async function choose(ask) {
  const source = chosen("source");
  at("own").hidden = source === "demo";
  at("demo").hidden = source !== "demo";
  suggest(source, ask);
  if (source === "demo" && !demo.length) {
    at("count").textContent = "Fetching it…";
    demo = await fetchCorpus();
    at("peek").replaceChildren(...demo.slice(0, 20).map((passage) => element("li", "", passage)));
  }
  count();
}

async function fetchCorpus() {
  try {
    return await (fetched ??= corpus());
  } catch (error) {
    fetched = null;
    fail(error);
    return [];
  }
}

function suggest(source, ask) {
  const chips = QUESTIONS[source].map((question) => {
    const [entry, chip] = [element("li"), element("button", "chip", question)];
    chip.type = "button";
    chip.onclick = () => {
      at("query").value = question;
      ask();
    };
    entry.append(chip);
    return entry;
  });
  at("examples").replaceChildren(...chips);
  at("query").value = QUESTIONS[source][0];
  at("candidates").value = CANDIDATES[source];
  // A cross-encoder takes its time for all of the demo corpus; a cascade does not.
  const fitting = method(source === "demo" ? "cascade" : "cross-encoder");
  if (!fitting.disabled) fitting.checked = true;
}

async function addFiles(list) {
  clear();
  for (const file of list) {
    try {
      files.push(await read(file, at("split").value));
    } catch (error) {
      fail(new Refused(`${file.name}: ${error.message}`, "file", "Split it another way: choose above, then add it again."));
    }
  }
  listFiles();
}

function listFiles() {
  const entries = files.map((file) => {
    const entry = element("li", "", `${file.name}: ${number(file.passages.length)} passages `);
    const remove = element("button", "plain", "Remove");
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove ${file.name}`);
    remove.onclick = () => {
      files = files.filter((each) => each !== file);
      listFiles();
      at("text").focus();
    };
    entry.append(remove);
    return entry;
  });
  at("loaded").replaceChildren(...entries);
  count();
}

function count() {
  try {
    const found = passages();
    const characters = found.reduce((sum, passage) => sum + passage.length, 0);
    const own = chosen("source") === "own" && at("text").value.trim();
    const kind = own ? `, ${pasted().kind}` : "";
    const plural = found.length === 1 ? "" : "s";
    at("count").textContent = `${number(found.length)} passage${plural}${kind} · ${number(characters)} characters`;
  } catch (error) {
    at("count").textContent = error.message;
  }
}

const number = (value) => value.toLocaleString("en");
