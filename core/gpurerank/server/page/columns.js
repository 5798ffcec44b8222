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
  const from = column.against ? `, moves from ${column.against.title.toLowerCase()}` : "";
  head.append(element("h3", "", column.title), element("p", "note", column.note + from));
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
  button.setAttribute("aria-expanded", "false");
  const { title, body } = titled(passage);
  const words = element("span", "words");
  if (title) words.append(element("b", "", title), " ");
  words.append(element("span", "body", Array.from(body).slice(0, 300).join("")));
  button.append(element("span", "rank", item.rank), words, measures(item, column));
  button.onclick = () => toggle(place, button, item, passage);
  place.append(button);
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

function toggle(place, button, item, passage) {
  const open = button.getAttribute("aria-expanded") === "false";
  button.setAttribute("aria-expanded", String(open));
  place.querySelector(".whole")?.remove();
  if (!open) return;
  const whole = element("div", "whole");
  const text = element("div", "text");
  text.tabIndex = 0;
  text.setAttribute("role", "region");
  text.setAttribute("aria-label", `Passage ${item.index + 1}, whole`);
  text.append(...marked(passage, item.span));
  whole.append(element("p", "note", provenance(item, passage)), text);
  place.append(whole);
  const mark = text.querySelector("mark");
  if (mark) text.scrollTop = mark.offsetTop - text.offsetTop - 40;
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
