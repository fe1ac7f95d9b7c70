// Many scores: a picture without numbers, the score under the pointer, and the best match of each query.

import { heat } from "./colors.js";
import { count, fixed, make } from "./dom.js";
import { bestOf } from "./scores.js";

const HINT = "Point at the picture to read a score.";

export function drawOverview(element, scores, rows, across, own) {
  const picture = paint(scores, `Overview of ${rows.length} × ${count(across.length, "score")}. The table below lists the best matches.`);
  const reading = make("p", { className: "reading note" }, HINT);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const row = at(event.clientY - box.top, box.height, rows.length);
    const column = at(event.clientX - box.left, box.width, across.length);
    reading.replaceChildren(make("b", {}, fixed(scores[row][column], 3)), ` ${name(rows[row])} · ${name(across[column])}`);
  });
  picture.addEventListener("pointerleave", () => reading.replaceChildren(HINT));
  element.replaceChildren(make("div", { className: "overview" }, picture, reading, matches(scores, rows, across, own)));
}

const at = (offset, size, parts) => Math.min(parts - 1, Math.max(0, Math.floor((offset / size) * parts)));

const name = ({ id, text }) => `${id} ${text.length > 60 ? `${text.slice(0, 59)}…` : text}`;

/** One pixel for each score; the style sheet enlarges the picture. */
function paint(scores, label) {
  const canvas = make("canvas", { width: scores[0].length, height: scores.length });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`;
  const context = canvas.getContext("2d");
  scores.forEach((row, y) => row.forEach((score, x) => {
    context.fillStyle = heat(score).background;
    context.fillRect(x, y, 1, 1);
  }));
  return canvas;
}

function matches(scores, rows, across, own) {
  const found = scores.map((row, index) => [rows[index], bestOf(row, own ? index : -1)]);
  const sorted = found
    .filter(([, best]) => best >= 0)
    .map(([row, best], index) => [row, across[best], scores[rows.indexOf(row)][best], index])
    .sort(([, , a], [, , b]) => b - a);
  return make(
    "table",
    { className: "texts" },
    make("caption", { className: "visually-hidden" }, "The best match of each query, highest score first."),
    make("thead", {}, make("tr", {}, ...["Text", "Best match"].map(head), make("th", { scope: "col", className: "number" }, "Score"))),
    make("tbody", {}, ...sorted.map(([row, match, score]) =>
      make("tr", {}, cell(row), cell(match), make("td", { className: "number" }, fixed(score, 3))))),
  );
}

const head = (text) => make("th", { scope: "col" }, text);

const cell = ({ id, group, text }) =>
  make("td", {}, make("span", { className: "text", title: text }, make("b", { className: group }, id), ` ${text}`));
