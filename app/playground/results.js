// The sections of results.

import { find } from "./dom.js";
import { drawHeatmap } from "./heatmap.js";
import { clearMap, drawMap } from "./map.js";
import { drawRanking } from "./ranking.js";
import { drawTimings } from "./timings.js";
import { drawTokens } from "./tokens.js";

let redraw = () => {};
let mapped = null; // the shares of the axes that were drawn last

/** Shows what `compare` has so far, as rankings if `search` is true. */
export function showResults({ variants, items, calls, shares }, search) {
  const [queries, documents] = ["queries", "documents"].map((group) => items.filter((item) => item.group === group));
  const [first, second] = variants;
  const name = search ? "Ranking" : "Similarity";
  const columns = documents.length ? documents : null;
  const draw = (id, scores, base) =>
    search ? drawRanking(id, scores, queries, columns ?? queries, base) : drawHeatmap(id, scores, queries, columns, base);
  find("nothing").hidden = true;
  find("outcome").hidden = false;
  find("outcome").classList.toggle("pair", Boolean(second));
  find("other-section").hidden = !second;
  find("heatmap-title").textContent = first.title ? `${name} ${first.title}` : name;
  if (second) find("other-title").textContent = `${name} ${second.title}`;
  const drawScores = () => {
    draw("heatmap", first.scores, second?.plain ? second.scores : undefined);
    if (second) draw("other", second.scores);
  };
  redraw = () => {
    drawScores();
    if (shares) drawMap(items, shares, false);
  };
  drawScores();
  if (!shares) clearMap();
  else if (shares !== mapped) drawMap(items, shares, true); // once, so that nothing interrupts its points
  mapped = shares;
  drawTokens(items);
  drawTimings(calls);
}

/** Draws with the colours of the current theme. */
export const redrawResults = () => redraw();
