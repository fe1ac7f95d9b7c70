// The documents of each query, best first.

import { heat } from "./colors.js";
import { find, fixed, make, visuallyHidden } from "./dom.js";

const MAX_SHOWN = 50; // documents of a query

/** Draws into the element `id`. With the scores of another variant as `base`, each document shows how far it moved. */
export function drawRanking(id, scores, queries, documents, base) {
  find(`${id}-legend`).replaceChildren();
  find(id).replaceChildren(...queries.flatMap((query, index) => {
    const before = base && order(base[index]);
    const list = order(scores[index]).slice(0, MAX_SHOWN).map((at, rank) =>
      entry(documents[at], scores[index][at], before && before.indexOf(at) - rank));
    const more = documents.length - list.length;
    return [
      make("h3", {}, query.text),
      make("ol", { className: "ranking" }, ...list),
      ...(more > 0 ? [make("p", { className: "note" }, `and ${more} more, less similar`)] : []),
    ];
  }));
}

const order = (row) => row.map((_, at) => at).sort((a, b) => row[b] - row[a]);

function entry({ id, text }, score, up) {
  const bar = make("span", { className: "level" }, make("i"));
  bar.setAttribute("aria-hidden", "true");
  bar.firstChild.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
  bar.firstChild.style.backgroundColor = heat(Math.max(0.35, score)).background;
  const made = make("li", { dataset: { id, score } }, make("span", { className: "found" }, text), bar, make("b", {}, fixed(score, 3)));
  if (up) {
    const places = `${Math.abs(up)} place${Math.abs(up) === 1 ? "" : "s"}`;
    const arrow = make("em", { className: up > 0 ? "up" : "down" }, `${up > 0 ? "▲" : "▼"}${Math.abs(up)}`);
    arrow.setAttribute("aria-hidden", "true");
    made.append(arrow, visuallyHidden(`, ${places} ${up > 0 ? "up" : "down"} by the instruction`));
  }
  return made;
}
