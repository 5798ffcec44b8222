// Lines between columns: what rose, what fell, and what came from further down.

const SVG = "http://www.w3.org/2000/svg";
let watching = null;

/** Draws a line from each row to the same passage in the next column, and keeps them in place. */
export function drawLinks(place, columns) {
  const layer = document.createElementNS(SVG, "svg");
  layer.setAttribute("class", "links");
  layer.setAttribute("aria-hidden", "true");
  place.append(layer);
  watching?.disconnect();
  // A passage that opens pushes the rows below it.
  watching = new ResizeObserver(() => redraw(place, layer, columns));
  watching.observe(place);
  for (const rows of place.querySelectorAll(".rows")) watching.observe(rows);
}

function redraw(place, layer, columns) {
  const origin = place.getBoundingClientRect();
  const sides = [...place.querySelectorAll(".rows")].map((rows) => measured(rows, origin));
  const lines = [];
  for (let left = 0; left + 1 < columns && sides.length === columns; left += 1) {
    lines.push(...between(sides[left], sides[left + 1]));
  }
  layer.replaceChildren(...lines);
}

function measured(rows, origin) {
  const box = rows.getBoundingClientRect();
  const heads = [...rows.querySelectorAll(".row")].map((row, place) => {
    const head = row.firstElementChild.getBoundingClientRect();
    const first = row.querySelector(".new") !== null;
    return [row.dataset.index, { place, first, y: head.top + head.height / 2 - origin.top }];
  });
  return {
    left: box.left - origin.left,
    right: box.right - origin.left,
    bottom: (rows.lastElementChild ?? rows).getBoundingClientRect().bottom - origin.top,
    rows: new Map(heads),
  };
}

function between(from, to) {
  const lines = [];
  for (const [index, end] of to.rows) {
    const start = from.rows.get(index);
    const places = start ? start.place - end.place : end.first ? 0 : 1;
    const kind = places > 0 ? "rose" : places < 0 ? "fell" : "stayed";
    // What was not among the rows shown comes from below them.
    const y = start?.y ?? from.bottom;
    const shown = start ? "" : " from-below";
    if (from.rows.size) lines.push(line(index, kind + shown, from.right, y, to.left, end.y));
  }
  return lines;
}

function line(index, kind, x1, y1, x2, y2) {
  const path = document.createElementNS(SVG, "path");
  const bend = (x2 - x1) * 0.55;
  path.setAttribute("d", `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`);
  path.setAttribute("class", kind);
  path.dataset.index = index;
  return path;
}
