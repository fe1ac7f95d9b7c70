// The similarities as a table whose cells are coloured.

import { heat, ramp } from "./colors.js";
import { find, fixed, make, unseen } from "./dom.js";

const MOST = 60; // rows and columns that are drawn: a table of a million cells is of no use to anyone

/** `rows` and `columns` are lists of {id, text}; without columns the rows are compared with each other. */
export function drawHeatmap(scores, rows, columns) {
  const own = columns === null;
  const across = own ? rows : columns;
  const shown = scores.slice(0, MOST).map((row) => row.slice(0, MOST));
  const flat = shown.flat();
  const range = [Math.min(...flat), Math.max(...flat)];
  find("heatmap").replaceChildren(
    make("table", { className: "heat" }, caption(own), head(across), body(shown, rows, across, range, own)),
  );
  find("legend").replaceChildren(...legend(range));
  find("heatmap-note").textContent =
    rows.length > MOST || across.length > MOST
      ? `The first ${Math.min(MOST, rows.length)} × ${Math.min(MOST, across.length)} of ${rows.length} × ${across.length} scores.`
      : "";
}

function caption(own) {
  return make(
    "caption",
    { className: "unseen" },
    own ? "Cosine similarity of the queries with each other." : "Cosine similarity of each query with each document.",
  );
}

function header(scope, { id, side, text }) {
  const cell = make("th", { scope, title: text, className: side }, make("b", {}, id), make("span", {}, text));
  return cell;
}

function head(across) {
  const cells = across.slice(0, MOST).map((item) => header("col", item));
  return make("thead", {}, make("tr", {}, make("td"), ...cells));
}

function body(shown, rows, across, range, own) {
  return make("tbody", {}, ...shown.map((row, index) => {
    const best = bestOf(row, own ? index : -1);
    return make("tr", {}, header("row", rows[index]), ...row.map((score, at) => cell(score, range, at === best, across[at])));
  }));
}

/** The position of the highest score but the one with itself. */
function bestOf(row, self) {
  const others = row.filter((_, at) => at !== self);
  return others.length < 2 ? -1 : row.findIndex((score, at) => at !== self && score === Math.max(...others));
}

function cell(score, [low, high], best, { id }) {
  const made = make("td", { dataset: { score }, title: `${id}: ${score}` }, fixed(score, 3));
  if (best) {
    made.className = "best";
    made.append(unseen(" best"));
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
  const mark = make("span", { className: "mark" }, "best of its row");
  return [unseen("From "), fixed(low, 2), bar, unseen(" to "), fixed(high, 2), mark];
}
