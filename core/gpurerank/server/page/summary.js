// What a ranking changed, in a sentence.

import { climbed, seconds } from "./columns.js";
import { named } from "./passages.js";

const TOP = 5;

/** What moved from one ranking to the other. */
export function changed(before, after, passages) {
  if (!after.items.length) return "Nothing came back.";
  const [first, last] = [before.items[0], after.items[0]].map((item) => named(passages[item.index]));
  const moves = after.items.map((item) => ({ item, places: climbed(item, before) ?? 0 }));
  const best = moves.slice(0, 2 * TOP).reduce((a, b) => (b.places > a.places ? b : a));
  const told = [first === last ? `${first} stays first.` : `First place goes from ${first} to ${last}, up from ${moves[0].places + 1}.`];
  if (best.places > 0 && best.item !== after.items[0]) {
    const { index, rank } = best.item;
    told.push(`The highest climb: ${named(passages[index])}, from ${rank + best.places} to ${rank}.`);
  }
  const moved = moves.filter(({ places }) => places).length;
  told.push(moved ? `${moved} of ${moves.length} moved.` : "Nothing moved.");
  return told.join(" ");
}

/** How much of the cross-encoder's answer the cheaper methods have. */
export function compared(bi, cascade, cross) {
  const top = Math.min(TOP, cross.items.length);
  const best = new Set(cross.items.slice(0, top).map((item) => item.index));
  const told = ({ items, took_ms: took }) => {
    const found = items.slice(0, top).filter((item) => best.has(item.index)).length;
    return `${found} in ${seconds(took)}`;
  };
  return `Of the cross-encoder’s first ${top}, found in ${seconds(cross.took_ms)}, the cascade has`
    + ` ${told(cascade)} and the bi-encoder ${told(bi)}.`;
}
