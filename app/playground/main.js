// The page: a form, one run at a time, and what came of it.

import { ServiceError, address, call, hasKey, setKey } from "./api.js";
import { onThemeChange } from "./colors.js";
import { count, find, fixed, make } from "./dom.js";
import { SIDES, embedBody, read, showCounts, similarityBody } from "./form.js";
import { drawHeatmap } from "./heatmap.js";
import { clearMap, drawMap } from "./map.js";
import { project } from "./pca.js";
import { clearProblem, showMissing, showProblem } from "./problem.js";
import { copy, curl, python } from "./snippets.js";
import { drawTexts } from "./texts.js";
import { drawTimings } from "./timings.js";

let running = null;
let redraw = () => {};

async function run() {
  if (running) return;
  const sides = read();
  if (!sides.queries.texts.length) {
    showMissing(SIDES.queries.texts, "Write at least one query, one a line.");
    return;
  }
  const focused = document.activeElement;
  clearProblem();
  running = new AbortController();
  setBusy(true);
  try {
    await compare(sides, running.signal);
  } catch (error) {
    fail(error, sides);
  } finally {
    running = null;
    setBusy(false);
    giveBack(focused);
  }
}

/** A button that is disabled or removed loses the focus: it comes back, unless it has gone on. */
function giveBack(focused) {
  if (document.activeElement !== document.body || focused === document.body) return;
  (focused.isConnected ? focused : find("run")).focus();
}

/** The scores first, as soon as they are there; then the vectors, for the map. */
async function compare(sides, signal) {
  const scored = await call("similarity", similarityBody(sides), signal);
  const items = textsOf(sides, scored.content);
  const calls = [["/similarity", scored]];
  showOutcome(scored.content.scores, items, calls, null);
  const embedded = await call("embed", embedBody(sides), signal);
  const { points, shares } = project(embedded.content.embeddings.map(decode));
  points.forEach((point, index) => {
    items[index].point = point;
  });
  calls.push(["/embed", embedded]);
  showOutcome(scored.content.scores, items, calls, shares);
  say(summary(scored.content.scores, items, scored.total + embedded.total));
}

/** Every text as {id, side, text, tokens, truncated}, queries first. */
function textsOf(sides, { tokens, truncated }) {
  return Object.entries(sides).flatMap(([side, { texts }]) =>
    texts.map((text, index) => ({
      id: `${SIDES[side].letter}${index + 1}`,
      side,
      text,
      tokens: tokens[side][index],
      truncated: truncated[side].includes(index),
    })),
  );
}

function showOutcome(scores, items, calls, shares) {
  const [queries, documents] = ["queries", "documents"].map((side) => items.filter((item) => item.side === side));
  find("nothing").hidden = true;
  find("outcome").hidden = false;
  redraw = () => {
    drawHeatmap(scores, queries, documents.length ? documents : null);
    if (shares) drawMap(items, shares);
    else clearMap();
  };
  redraw();
  drawTexts(items);
  drawTimings(calls);
}

/** base64 of little-endian float32 numbers. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function summary(scores, items, total) {
  const [rows, columns] = [scores.length, scores[0].length];
  const cut = items.filter((item) => item.truncated).length;
  return `${rows} × ${count(columns, "score")} in ${fixed(total, 0)} ms${cut ? `; ${count(cut, "text")} shortened` : ""}.`;
}

function fail(error, sides) {
  if (error.name === "AbortError") {
    say("Cancelled.");
    return;
  }
  if (!(error instanceof ServiceError)) {
    showProblem(new ServiceError(-1, { message: "Reload it and try again, please." }), sides, run);
    throw error;
  }
  say("");
  showProblem(error, sides, run);
  if (error.status === 401) askForKey(true);
}

function askForKey(focus) {
  find("key-row").hidden = false;
  if (focus) find("key").focus();
}

function setBusy(busy) {
  find("run").disabled = busy;
  find("cancel").hidden = !busy;
  find("results").setAttribute("aria-busy", String(busy));
  if (busy) say("Comparing …");
}

const say = (text) => {
  find("status").textContent = text;
};

function showSnippets() {
  const body = similarityBody(read());
  find("curl").textContent = curl(address("similarity"), body, hasKey());
  find("python").textContent = python(address("similarity"), body, hasKey());
}

async function copySnippet(name) {
  find("copied").textContent = ""; // so that the same words are read out again
  const copied = await copy(find(name).textContent);
  find("copied").textContent = copied ? `${name === "curl" ? "curl command" : "Python code"} copied` : "Select the text and copy it";
}

async function showModel() {
  try {
    const { content: info } = await call("info");
    const facts = [info.model, info.dtype, info.device, `${info.dimensions} dimensions`, `${info.pooling} pooling`];
    find("model").replaceChildren(...facts.map((fact) => make("li", {}, fact)));
  } catch (error) {
    if (error.status === 401) askForKey(false);
    find("model").replaceChildren(make("li", {}, error.status === 401 ? "a key is needed" : error.message));
    if (error.status === 503 || error.status === 0) setTimeout(showModel, 3000);
  }
}

find("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
find("form").addEventListener("input", () => {
  setKey(find("key").value);
  showCounts();
  showSnippets();
});
find("key").addEventListener("change", showModel);
find("cancel").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copySnippet(button.dataset.copy));
}
onThemeChange(() => redraw());

showCounts();
showSnippets();
showModel();
