// The page: runs one comparison at a time and shows its results.

import { ServiceError, address, call, hasKey, setKey } from "./api.js";
import { onThemeChange } from "./colors.js";
import { count, find, fixed, make } from "./dom.js";
import { GROUPS, chosenModels, embedBody, offerModels, read, showCounts, similarityBody } from "./form.js";
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
  const groups = read();
  if (!groups.queries.texts.length) {
    showMissing(GROUPS.queries.texts, "Enter at least one query, one per line.");
    return;
  }
  const focused = document.activeElement;
  clearProblem();
  running = new AbortController();
  setBusy(true);
  try {
    await compare(groups, running.signal);
  } catch (error) {
    fail(error, groups);
  } finally {
    running = null;
    setBusy(false);
    restoreFocus(focused);
  }
}

/** A disabled or removed button loses the focus. Restores it, unless another element has it. */
function restoreFocus(focused) {
  if (document.activeElement !== document.body || focused === document.body) return;
  (focused.isConnected ? focused : find("run")).focus();
}

/** Shows the scores of the model, or of both models, then fetches the first one's vectors and draws the map. */
async function compare(groups, signal) {
  const [model, other] = chosenModels();
  const scored = await call("similarity", similarityBody(groups, model), signal);
  const items = textsOf(groups, scored.content);
  const calls = [["/similarity", scored]];
  const results = [scored.content];
  showResults(results, items, calls, null);
  if (other) {
    const second = await call("similarity", similarityBody(groups, other), signal);
    calls.push(["/similarity", second]);
    results.push(second.content);
    showResults(results, items, calls, null);
  }
  const embedded = await call("embed", embedBody(groups, model), signal);
  const { points, shares } = project(embedded.content.embeddings.map(decode));
  points.forEach((point, index) => {
    items[index].point = point;
  });
  calls.push(["/embed", embedded]);
  showResults(results, items, calls, shares);
  setStatus(summary(scored.content.scores, items, calls.reduce((sum, [, { total }]) => sum + total, 0)));
}

/** Every text as {id, group, text, tokens, truncated}, queries first. */
function textsOf(groups, { tokens, truncated }) {
  return Object.entries(groups).flatMap(([group, { texts }]) =>
    texts.map((text, index) => ({
      id: `${GROUPS[group].letter}${index + 1}`,
      group,
      text,
      tokens: tokens[group][index],
      truncated: truncated[group].includes(index),
    })),
  );
}

/** `results` are the responses of one or two models. */
function showResults(results, items, calls, shares) {
  const [queries, documents] = ["queries", "documents"].map((group) => items.filter((item) => item.group === group));
  find("nothing").hidden = true;
  find("outcome").hidden = false;
  const [{ scores, model }, other] = results;
  find("heatmap-title").textContent = other ? `Similarity: ${model}` : "Similarity";
  find("other-section").hidden = !other;
  if (other) find("other-title").textContent = `Similarity: ${other.model}`;
  redraw = () => {
    drawHeatmap("heatmap", scores, queries, documents.length ? documents : null);
    if (other) drawHeatmap("other", other.scores, queries, documents.length ? documents : null);
    if (shares) drawMap(items, shares);
    else clearMap();
  };
  redraw();
  drawTexts(items);
  drawTimings(calls);
}

/** Decodes base64 of little-endian float32 numbers. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function summary(scores, items, total) {
  const [rows, columns] = [scores.length, scores[0].length];
  const cut = items.filter((item) => item.truncated).length;
  return `${rows} × ${count(columns, "score")} in ${fixed(total, 0)} ms${cut ? `; ${count(cut, "text")} truncated` : ""}.`;
}

function fail(error, groups) {
  if (error.name === "AbortError") {
    setStatus("Cancelled.");
    return;
  }
  if (!(error instanceof ServiceError)) {
    showProblem(new ServiceError(-1, { message: "Reload it and try again." }), groups, run);
    throw error;
  }
  setStatus("");
  showProblem(error, groups, run);
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
  if (busy) setStatus("Comparing …");
}

const setStatus = (text) => {
  find("status").textContent = text;
};

function showSnippets() {
  const body = similarityBody(read(), chosenModels()[0]);
  find("curl").textContent = curl(address("similarity"), body, hasKey());
  find("python").textContent = python(address("similarity"), body, hasKey());
}

async function copySnippet(name) {
  find("copied").textContent = ""; // so that screen readers announce the same words again
  const copied = await copy(find(name).textContent);
  find("copied").textContent = copied ? `${name === "curl" ? "curl command" : "Python code"} copied` : "Select the text and copy it";
}

async function showModel() {
  try {
    const { content: info } = await call("info");
    const facts = [info.model, info.dtype, info.device, `${info.dimensions} dimensions`, `${info.pooling} pooling`];
    find("model").replaceChildren(...facts.map((fact) => make("li", {}, fact)));
    offerModels(info.models.map(({ model }) => model));
    showSnippets();
  } catch (error) {
    if (error.status === 401) askForKey(false);
    find("model").replaceChildren(make("li", {}, error.status === 401 ? "requires an API key" : error.message));
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
