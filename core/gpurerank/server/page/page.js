// The page itself: a question is asked, columns appear as they are answered.

import { draw } from "./columns.js";
import { clear, fail } from "./failure.js";
import { rank, Refused } from "./server.js";
import { adapt, chosen, key, passages, prepare, query, request } from "./setup.js";
import { changed, compared } from "./summary.js";

const AT_ONCE = 12;
const NAMES = { "bi-encoder": "Bi-encoder", cascade: "Cascade", "cross-encoder": "Cross-encoder" };
const NARROW = matchMedia("(max-width: 760px)");
const at = (id) => document.getElementById(id);

let running = null;
let result = null;

async function rankOnce(found, signal) {
  const method = chosen("method");
  const given = at("before").value === "input" || method === "bi-encoder";
  const before = given ? asGiven(found) : await ranked("bi-encoder", found, signal, null);
  show([before], found);
  const after = await ranked(method, found, signal, before);
  show([before, after], found);
  say(changed(before, after, found));
}

async function compareAll(found, signal) {
  const columns = [];
  // One after another, so that none waits for the other's batches.
  for (const method of ["bi-encoder", "cascade", "cross-encoder"]) {
    columns.push(await ranked(method, found, signal, columns.at(-1) ?? null));
    show(columns, found);
  }
  say(compared(...columns));
}

async function ranked(method, found, signal, against) {
  const { results: items, took_ms, stages_ms, usage } = await rank(request(method, found), key(), signal);
  const note = described(method, items.length, found.length);
  return withRanks({ title: NAMES[method], note, items, took_ms, stages_ms, tokens: usage.total_tokens, against });
}

function described(method, read, all) {
  if (method === "bi-encoder") return "cosine of two vectors";
  if (method === "cross-encoder") return "reads question and passage together";
  return read < all ? `its second stage read ${read} of ${all}` : `its second stage read all ${all}`;
}

function asGiven(found) {
  const items = found.map((_, index) => ({ index, rank: index + 1, score: null, span: null }));
  return withRanks({ title: "Input order", note: "as the passages came", items, took_ms: null, against: null });
}

function withRanks(column) {
  const ranks = new Map(column.items.map((item) => [item.index, item.rank]));
  return { ...column, ranks, open: new Set() };
}

function show(columns, found) {
  result = { columns, found, shown: AT_ONCE };
  redraw();
}

function redraw() {
  if (!result) return;
  const { columns, found, shown } = result;
  draw(at("columns"), columns, found, { shown, narrow: NARROW.matches });
  const longest = Math.max(...columns.map((column) => column.items.length));
  at("more").hidden = longest <= shown;
  at("more").textContent = `Show ${Math.min(longest - shown, AT_ONCE)} more of ${longest - shown}`;
}

function more() {
  const { shown } = result;
  result.shown += AT_ONCE;
  redraw();
  // On with the first that is new; of the answer's column, which is last beside others and first above them.
  const rows = [...document.querySelectorAll(".rows")].at(NARROW.matches ? 0 : -1);
  rows.children[shown]?.firstElementChild.focus();
}

function say(text) {
  at("summary").textContent = text;
}

async function run(work) {
  running?.abort();
  const mine = (running = new AbortController());
  clear();
  let ticking = null;
  try {
    const found = checked();
    ticking = begin(found.length);
    await work(found, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") fail(error);
    else if (running === mine) say("Cancelled.");
  } finally {
    clearInterval(ticking);
    if (running === mine) rest();
  }
}

function checked() {
  if (!query()) throw new Refused("There is no question yet.", "query", "Type one, or take an example.");
  const found = passages();
  if (!found.length) throw new Refused("There are no passages yet.", "empty");
  return found;
}

function begin(passageCount) {
  const started = performance.now();
  const tick = () => {
    const spent = Math.floor((performance.now() - started) / 1000);
    at("spent").textContent = `Reading ${passageCount.toLocaleString("en")} passages… ${spent} s`;
  };
  result = null;
  at("columns").replaceChildren();
  at("more").hidden = true;
  at("empty").hidden = true;
  at("results-title").textContent = query();
  say("");
  at("status").textContent = `Ranking ${passageCount} passages.`;
  busy(true);
  tick();
  at("results").hidden = false;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  at("results").scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
  return setInterval(tick, 500);
}

function rest() {
  running = null;
  at("status").textContent = "";
  if (document.activeElement === at("cancel")) at("query").focus();
  busy(false);
}

function busy(now) {
  at("progress").hidden = !now;
  at("legend").hidden = now || !result;
  at("keys").hidden = now;
  at("rank").textContent = now ? "Ranking…" : "Rank";
  for (const id of ["rank", "compare"]) at(id).setAttribute("aria-disabled", String(now));
  at("results").setAttribute("aria-busy", String(now));
}

/** A second click changes nothing: what runs is cancelled first, or another question is chosen. */
function unlessRunning(work) {
  if (!running) run(work);
}

function listen() {
  at("ask").onsubmit = (event) => {
    event.preventDefault();
    unlessRunning(rankOnce);
  };
  at("compare").onclick = () => unlessRunning(compareAll);
  at("cancel").onclick = () => running?.abort();
  at("more").onclick = more;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") running?.abort();
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    unlessRunning(rankOnce);
  });
  NARROW.addEventListener("change", redraw);
}

prepare(() => run(rankOnce));
listen();
adapt().catch(fail);
