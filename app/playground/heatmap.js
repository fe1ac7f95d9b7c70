// The similarity scores as a table of coloured cells; a large one as an overview without numbers.

import { heat, ramp } from "./colors.js";
import { find, fixed, make, visuallyHidden } from "./dom.js";
import { drawOverview } from "./overview.js";
import { bestOf, signed } from "./scores.js";

const MAX_ROWS = 24; // a larger table would be unreadable
const MAX_COLUMNS = 12;

/**
 * Draws into the element `id`. `rows` and `columns` are lists of {id, text}. If `columns` is null, the rows are compared
 * with each other. With the scores of another variant as `base`, each cell shows its difference from them.
 */
export function drawHeatmap(id, scores, rows, columns, base) {
  const own = columns === null;
  const across = own ? rows : columns;
  const large = rows.length > MAX_ROWS || across.length > MAX_COLUMNS;
  find(`${id}-legend`).replaceChildren(...legend(!large, base));
  if (large) {
    drawOverview(find(id), scores, rows, across, own);
    return;
  }
  find(id).replaceChildren(
    make("table", { className: "heat" }, caption(own), head(across), body(scores, rows, across, own, base)),
  );
}

function caption(own) {
  return make(
    "caption",
    { className: "visually-hidden" },
    own ? "Cosine similarity of the queries with each other." : "Cosine similarity of each query with each document.",
  );
}

function header(scope, { id, group, text }) {
  return make("th", { scope, title: text, className: group }, make("b", {}, id), make("span", {}, text));
}

function head(across) {
  return make("thead", {}, make("tr", {}, make("td"), ...across.map((item) => header("col", item))));
}

function body(scores, rows, across, own, base) {
  return make("tbody", {}, ...scores.map((row, index) => {
    const best = bestOf(row, own ? index : -1);
    const cells = row.map((score, at) => cell(score, at === best, across[at], base && score - base[index][at]));
    return make("tr", {}, header("row", rows[index]), ...cells);
  }));
}

function cell(score, best, { id }, change) {
  const made = make("td", { dataset: { score }, title: `${id}: ${score}` }, fixed(score, 3));
  if (best) {
    made.className = "best";
    made.append(visuallyHidden(" best"));
  }
  if (change !== undefined) made.append(make("small", {}, signed(change)));
  const { background, ink } = heat(score);
  made.style.backgroundColor = background;
  made.style.color = ink;
  return made;
}

/** The scale is the same for all texts, so that unrelated texts look unrelated. */
function legend(best, base) {
  const bar = make("span", { className: "ramp" });
  bar.style.backgroundImage = `linear-gradient(to right, ${ramp().join(", ")})`;
  bar.setAttribute("aria-hidden", "true");
  return [
    visuallyHidden("Colours from "), "0 unrelated", bar, visuallyHidden(" to "), "1 same",
    ...(best ? [make("span", { className: "mark" }, "best in its row")] : []),
    ...(best && base ? [make("span", {}, "± by the instruction")] : []),
  ];
}
