// Rankings side by side, one column each, with what moved between them.

import { drawLinks } from "./links.js";
import { titled } from "./passages.js";

/**
 * @typedef {object} Item
 * @property {number} index Of the passage.
 * @property {number} rank From 1.
 * @property {number | null} score
 * @property {[number, number] | null} span Characters of the best window, counted as code points.
 *
 * @typedef {object} Column
 * @property {string} title
 * @property {string} note
 * @property {Item[]} items Best first.
 * @property {number | null} took_ms
 * @property {Object<string, number>} stages_ms
 * @property {number | null} tokens
 * @property {Column | null} against What its moves are counted from.
 * @property {Map<number, number>} ranks Of each passage.
 * @property {Set<number>} open Passages that are shown whole, however often the column is drawn.
 */

/** An element; every text goes in as text. */
export function element(tag, className = "", text = null) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  return made;
}

/** Draws the columns anew, `shown` rows of each; `narrow` says that there is room for one. */
export function draw(place, columns, passages, { shown, narrow }) {
  const slowest = Math.max(...columns.map((column) => column.took_ms ?? 0), 1);
  // On a phone the columns stand one above the other, and the answer belongs on top.
  const order = narrow ? [...columns].reverse() : columns;
  place.replaceChildren(...order.map((column) => drawn(column, passages, shown, slowest)));
  place.dataset.columns = columns.length;
  reveal(place);
  if (!narrow) drawLinks(place, columns.length);
  place.onpointerover = (event) => point(place, event.target);
  place.onpointerleave = () => point(place, null);
  place.onfocusin = (event) => point(place, event.target);
}

/** Places gained from one ranking to the other; null where the passage was not in the first. */
export function climbed(item, against) {
  const before = against?.ranks.get(item.index);
  return before === undefined ? null : before - item.rank;
}

export function seconds(ms) {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

function drawn(column, passages, shown, slowest) {
  const section = element("section", "column");
  const head = element("header");
  const title = element("h3", "", column.title);
  if (column.against) title.append(element("span", "note", `moves against ${column.against.title.toLowerCase()}`));
  head.append(title, element("p", "note", column.note));
  head.append(figures(column, slowest));
  const rows = element("ol", "rows");
  for (const item of column.items.slice(0, shown)) rows.append(row(item, column, passages[item.index]));
  section.append(head, rows);
  section.setAttribute("aria-label", column.title);
  return section;
}

function figures(column, slowest) {
  const place = element("div", "figures");
  if (column.took_ms === null) {
    place.append(element("p", "", "no model needed"));
    return place;
  }
  const stages = Object.entries(column.stages_ms);
  if (!stages.length) stages.push(["remembered", column.took_ms]);
  const bar = element("div", "stages");
  bar.style.width = `${Math.max(4, (100 * column.took_ms) / slowest)}%`;
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", stages.map(([name, ms]) => `${name} ${seconds(ms)}`).join(", "));
  const list = element("ul", "stage-names");
  for (const [name, ms] of stages) {
    const part = element("span", `stage stage-${name}`);
    part.style.flexGrow = Math.max(ms, 0.001);
    bar.append(part);
    const entry = element("li", `stage-${name}`);
    entry.append(element("i"), `${name.replace("_", " ")} ${seconds(ms)}`);
    list.append(entry);
  }
  const total = element("p", "total");
  total.append(element("b", "", seconds(column.took_ms)));
  total.append(` · ${column.tokens.toLocaleString("en")} tokens`);
  place.append(total, bar, list);
  return place;
}

function row(item, column, passage) {
  const place = element("li", "row");
  place.dataset.index = item.index;
  const button = element("button", "head");
  button.type = "button";
  const { title, body } = titled(passage);
  const words = element("span", "words");
  if (title) words.append(element("b", "", title), " ");
  words.append(element("span", "body", Array.from(body).slice(0, 300).join("")));
  button.append(element("span", "rank", item.rank), words, measures(item, column));
  const part = windowOf(item, passage);
  if (part) button.append(part);
  place.append(button);
  const turn = (open) => {
    column.open[open ? "add" : "delete"](item.index);
    unfold(place, button, open ? whole(item, passage) : null);
  };
  button.onclick = () => turn(!column.open.has(item.index));
  turn(column.open.has(item.index));
  return place;
}

function measures(item, column) {
  const place = element("span", "measures");
  if (item.score !== null) {
    const track = element("span", "track");
    const fill = element("span", "fill");
    fill.style.width = `${100 * Math.min(1, Math.max(0, item.score))}%`;
    track.append(fill);
    place.append(track, element("span", "score", item.score.toFixed(3)));
  }
  if (column.against) place.append(badge(item, column.against));
  return place;
}

/** Where in a long passage the best window lies; null where it is all of it. */
function windowOf(item, passage) {
  const length = Array.from(passage).length;
  if (!item.span || item.span[1] - item.span[0] >= length) return null;
  const [start, stop] = item.span.map((place) => (100 * place) / length);
  const place = element("span", "window");
  const [track, part] = [element("span", "window-track"), element("span", "window-part")];
  part.style.left = `${start}%`;
  part.style.width = `${stop - start}%`;
  track.append(part);
  place.append("Best window", track);
  return place;
}

function badge(item, against) {
  const places = climbed(item, against);
  if (places === null) return element("span", "move new", "new");
  const kind = places > 0 ? "rose" : places < 0 ? "fell" : "stayed";
  const made = element("span", `move ${kind}`);
  const sign = { rose: "▲", fell: "▼", stayed: "=" }[kind];
  const seen = element("span", "", places ? `${sign} ${Math.abs(places)}` : sign);
  seen.setAttribute("aria-hidden", "true");
  const told = places ? `${kind} ${Math.abs(places)}, was ${against.ranks.get(item.index)}` : "same place";
  made.append(seen, element("span", "hidden", told));
  made.title = told;
  return made;
}

function unfold(place, button, part) {
  button.setAttribute("aria-expanded", String(part !== null));
  place.querySelector(".whole")?.remove();
  if (!part) return;
  place.append(part);
  reveal(part);
}

/** Scrolls open passages to their windows, which only works once they are on the page. */
function reveal(place) {
  for (const mark of place.querySelectorAll(".text mark")) {
    mark.parentElement.scrollTop = mark.offsetTop - 40;
  }
}

function whole(item, passage) {
  const made = element("div", "whole");
  const text = element("div", "text");
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `Passage ${item.index + 1}, whole`);
  text.append(...marked(passage, item.span));
  made.append(element("p", "note", provenance(item, passage)), text);
  return made;
}

/** The server counts code points, a JavaScript string counts UTF-16 units. */
function marked(passage, span) {
  const points = Array.from(passage);
  if (!span || (span[0] === 0 && span[1] >= points.length)) return [passage];
  const part = (start, stop) => points.slice(start, stop).join("");
  return [part(0, span[0]), element("mark", "", part(...span)), part(span[1])];
}

function provenance(item, passage) {
  const length = Array.from(passage).length;
  const number = (value) => value.toLocaleString("en");
  const told = [`Passage ${item.index + 1}`];
  if (item.logit !== undefined && item.logit !== item.score) told.push(`logit ${item.logit.toFixed(2)}`);
  if (item.span && item.span[1] - item.span[0] < length) {
    told.push(`best window: characters ${number(item.span[0])} to ${number(item.span[1])} of ${number(length)}`);
  } else {
    told.push(`${number(length)} characters`);
  }
  if (item.truncated) told.push("read in part");
  return told.join(" · ");
}

function point(place, target) {
  const index = target?.closest?.(".row")?.dataset.index;
  place.classList.toggle("pointing", index !== undefined);
  for (const each of place.querySelectorAll("[data-index]")) {
    each.classList.toggle("pointed", each.dataset.index === index);
  }
}
