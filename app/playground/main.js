// The page: runs one comparison at a time and shows its results.

import { ServiceError, address, call, hasKey, setKey } from "./api.js";
import { onThemeChange } from "./colors.js";
import { compare } from "./comparison.js";
import { count, find, fixed, make } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { GROUPS, chosenModels, contents, embedBody, offerModels, read, readFile, searching, show, showCounts, similarityBody } from "./form.js";
import { movePoints } from "./map.js";
import { clearProblem, showMissing, showProblem } from "./problem.js";
import { redrawResults, showResults } from "./results.js";
import { isLink, keep, link, restore } from "./saved.js";
import { copy, curl, python } from "./snippets.js";

let running = null;
let rerun = false; // whether to run once more when the running one ends
let started = false; // whether there was a run; the first one needs no click
let shownInputs = null; // the inputs of the results

/** The inputs that the results depend on, as text. */
const inputs = () => JSON.stringify([searching(), read(), chosenModels()]);

async function run() {
  if (running) return;
  rerun = false;
  const groups = read();
  if (!groups.queries.texts.length) {
    showMissing(GROUPS.queries.texts, "Enter at least one query, one per line.");
    return;
  }
  if (searching() && !groups.documents) {
    showMissing(GROUPS.documents.texts, "Enter the documents to search, one per line, or choose a file.");
    return;
  }
  started = true;
  const focused = document.activeElement;
  const [given, search] = [inputs(), searching()];
  clearProblem();
  running = new AbortController();
  setBusy(true);
  try {
    const { variants: [{ scores }], items, calls } = await compare(groups, chosenModels(), running.signal, (result) => {
      showResults(result, search);
      shownInputs = given;
      showStale();
    });
    setStatus(summary(scores, items, calls.reduce((sum, [, { total }]) => sum + total, 0)));
  } catch (error) {
    fail(error, groups);
  } finally {
    running = null;
    setBusy(false);
    restoreFocus(focused);
    if (rerun) run();
  }
}

/** Runs, after cancelling what is running. */
function restart() {
  rerun = Boolean(running);
  if (running) running.abort();
  else run();
}

/** Marks results whose inputs have changed since. */
function showStale() {
  const stale = shownInputs !== null && inputs() !== shownInputs;
  find("stale").hidden = !stale;
  find("outcome").classList.toggle("stale", stale);
}

/** A disabled or removed button loses the focus. Restores it, unless another element has it. */
function restoreFocus(focused) {
  if (document.activeElement !== document.body || focused === document.body) return;
  const target = focused.isConnected && focused.checkVisibility() ? focused : find("run");
  target.focus({ preventScroll: true });
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
  if (busy) setStatus("Computing …");
}

const setStatus = (text) => {
  find("status").textContent = text;
};

function showSnippets() {
  const [groups, [model]] = [read(), chosenModels()];
  const write = find("language-curl").checked ? curl : python;
  find("similarity").textContent = write(address("similarity"), similarityBody(groups, model), hasKey(), "scores");
  find("embed").textContent = write(address("embed"), embedBody(groups, model), hasKey(), "embeddings");
}

/** Copies a text and says so in the element `id`. */
async function copyAndSay(text, id, name) {
  find(id).textContent = ""; // so that screen readers announce the same words again
  find(id).textContent = (await copy(text)) ? `${name} copied` : "The browser does not allow copying";
}

/** After each change of the inputs. */
function changed() {
  showCounts();
  showSnippets();
  showStale();
  keep(contents());
}

function fill(given) {
  show(given);
  changed();
}

async function showModel() {
  try {
    const { content: info } = await call("info");
    const facts = [info.model, info.dtype, info.device, `${info.dimensions} dimensions`, `${info.pooling} pooling`];
    find("model").replaceChildren(...facts.map((fact) => make("li", {}, fact)));
    offerModels(info.models.map(({ model }) => model));
    showSnippets();
    if (!started) run();
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
find("form").addEventListener("input", ({ target }) => {
  if (target.name === "mode" || target.type === "file") return;
  setKey(find("key").value);
  changed();
});
for (const name of Object.keys(EXAMPLES)) {
  find(`mode-${name}`).addEventListener("change", () => {
    fill({ ...contents(), mode: name });
    restart();
  });
}
find("document-file").addEventListener("change", async ({ target }) => {
  if (!target.files.length) return;
  await readFile(target.files[0]);
  changed();
});
find("query-texts").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && searching() && !event.shiftKey && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    run();
  }
});
find("examples").addEventListener("click", () => {
  const given = contents();
  fill({ ...given, [given.mode]: EXAMPLES[given.mode] });
  restart();
});
find("link").addEventListener("click", () => copyAndSay(link(contents()), "linked", "Link"));
addEventListener("hashchange", () => {
  if (!isLink(location.hash)) return;
  fill(restore());
  restart();
});
find("again").addEventListener("click", run);
find("key").addEventListener("change", showModel);
find("cancel").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run();
  }
});
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copyAndSay(find(button.dataset.copy).textContent, "copied", `Request to /${button.dataset.copy}`));
}
for (const radio of document.querySelectorAll("[name=language]")) radio.addEventListener("change", showSnippets);
for (const radio of document.querySelectorAll("[name=move]")) {
  radio.addEventListener("change", () => movePoints(radio.value === "without"));
}
onThemeChange(redrawResults);

fill(restore());
showModel();
