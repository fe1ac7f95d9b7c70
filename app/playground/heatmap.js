// The similarity scores as a table of coloured cells.

import { heat, ramp } from "./colors.js";
import { find, fixed, make, visuallyHidden } from "./dom.js";

const MAX_SIZE = 60; // rows and columns drawn; a larger table would be slow and unreadable

/** Draws into the element `id`. `rows` and `columns` are lists of {id, text}. If `columns` is null, the rows are compared with each other. */
export function drawHeatmap(id, scores, rows, columns) {
  const own = columns === null;
  const across = own ? rows : columns;
  const shown = scores.slice(0, MAX_SIZE).map((row) => row.slice(0, MAX_SIZE));
  const flat = shown.flat();
  const range = [Math.min(...flat), Math.max(...flat)];
  find(id).replaceChildren(
    make("table", { className: "heat" }, caption(own), head(across), body(shown, rows, across, range, own)),
  );
  find(`${id}-legend`).replaceChildren(...legend(range));
  find(`${id}-note`).textContent =
    rows.length > MAX_SIZE || across.length > MAX_SIZE
      ? `The first ${Math.min(MAX_SIZE, rows.length)} × ${Math.min(MAX_SIZE, across.length)} of ${rows.length} × ${across.length} scores.`
      : "";
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
  const cells = across.slice(0, MAX_SIZE).map((item) => header("col", item));
  return make("thead", {}, make("tr", {}, make("td"), ...cells));
}

function body(shown, rows, across, range, own) {
  return make("tbody", {}, ...shown.map((row, index) => {
    const best = bestOf(row, own ? index : -1);
    return make("tr", {}, header("row", rows[index]), ...row.map((score, at) => cell(score, range, at === best, across[at])));
  }));
}

/** The index of the row's highest score, not counting the comparison with itself. */
function bestOf(row, self) {
  const others = row.filter((_, at) => at !== self);
  return others.length < 2 ? -1 : row.findIndex((score, at) => at !== self && score === Math.max(...others));
}

function cell(score, [low, high], best, { id }) {
  const made = make("td", { dataset: { score }, title: `${id}: ${score}` }, fixed(score, 3));
  if (best) {
    made.className = "best";
    made.append(visuallyHidden(" best"));
  }
  const { background, ink } = heat(high - low < 1e-6 ? 0.5 : (score - low) / (high - low));
  made.style.backgroundColor = background;
  made.style.color = ink;
  return made;
}

function legend([low, high]) {
  const bar = make("span", { className: "ramp" });
  bar.style.backgroundImage = `linear-gradient(to right, ${ramp().join(", ")})`;
  bar.setAttribute("aria-hidden", "true");
  const mark = make("span", { className: "mark" }, "best in its row");
  return [visuallyHidden("From "), fixed(low, 2), bar, visuallyHidden(" to "), fixed(high, 2), mark];
}
