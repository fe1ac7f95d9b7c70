// The form: its two modes, the request bodies made from its lines, and the line that the `param` of an error names.

import { count, find, make } from "./dom.js";
import { EXAMPLES } from "./examples.js";

export const GROUPS = {
  queries: { name: "Queries", letter: "Q", texts: find("query-texts"), instruction: find("query-instruction") },
  documents: { name: "Documents", letter: "D", texts: find("document-texts"), instruction: find("document-instruction") },
};

let mode = "compare"; // or "search"
let inactive = EXAMPLES; // the contents of the fields in each mode, valid for the one that is not shown

const COUNTS = { queries: find("query-count"), documents: find("document-count") };

/**
 * Reads an input group as {texts, lines, instruction}. Blank lines are skipped; `lines` holds each text's line number. An
 * empty instruction is null: the request leaves it out, and the model's own prompt applies, if it has one.
 */
function readGroup({ texts, instruction }) {
  const filled = texts.value
    .split("\n")
    .map((line, index) => ({ text: line.trim(), line: index + 1 }))
    .filter(({ text }) => text);
  return {
    texts: filled.map(({ text }) => text),
    lines: filled.map(({ line }) => line),
    instruction: instruction.value.trim() || null,
  };
}

/** Reads the queries and, if there are any, the documents. */
export function read() {
  const queries = readGroup(GROUPS.queries);
  const documents = readGroup(GROUPS.documents);
  return documents.texts.length ? { queries, documents } : { queries };
}

/** Whether the mode is `search`. */
export const searching = () => mode === "search";

/** The contents of the fields in both modes. */
export function contents() {
  const shown = Object.entries(GROUPS).map(([group, { texts, instruction }]) => [
    group,
    { texts: texts.value.split("\n"), instruction: instruction.value },
  ]);
  return { ...inactive, mode, [mode]: Object.fromEntries(shown) };
}

/** Shows contents that `contents` returned; missing or wrong parts are those of the examples. */
export function show(given) {
  const valid = (name) => Object.keys(GROUPS).every((group) => Array.isArray(given?.[name]?.[group]?.texts));
  inactive = Object.fromEntries(Object.keys(EXAMPLES).map((name) => [name, (valid(name) ? given : EXAMPLES)[name]]));
  mode = given?.mode === "search" ? "search" : "compare";
  find(`mode-${mode}`).checked = true;
  for (const [group, { texts, instruction }] of Object.entries(GROUPS)) {
    texts.value = inactive[mode][group].texts.join("\n");
    instruction.value = String(inactive[mode][group].instruction ?? "");
  }
  find("run").textContent = searching() ? "Search" : "Compare";
  find("form").dataset.mode = mode;
  GROUPS.queries.texts.rows = searching() ? 2 : 5;
  showCounts();
}

/** Fills the documents with the lines of a file. */
export async function readFile(file) {
  GROUPS.documents.texts.value = (await file.text()).replace(/\r\n?/g, "\n").trimEnd();
}

/** The same groups with the instruction "", which means none even if the model has a prompt; null if there are no instructions. */
export function withoutInstructions(groups) {
  if (!Object.values(groups).some(({ instruction }) => instruction)) return null;
  return Object.fromEntries(Object.entries(groups).map(([group, content]) => [group, { ...content, instruction: "" }]));
}

export function showCounts() {
  for (const [group, element] of Object.entries(COUNTS)) {
    element.textContent = count(readGroup(GROUPS[group]).texts.length, "text");
  }
}

/** The names of the models to use: none if there is only one, else one or two. */
export function chosenModels() {
  return [find("model-name").value, find("other-name").value].filter(Boolean);
}

/** Offers the models of the service, if there are several. Keeps what is chosen. */
export function offerModels(names) {
  find("models").hidden = names.length < 2;
  const options = names.length < 2 ? [] : names;
  for (const [id, first] of [["model-name", []], ["other-name", [["", "none"]]]]) {
    const chosen = find(id).value;
    find(id).replaceChildren(
      ...[...first, ...options.map((name) => [name, name])].map(([value, text]) =>
        make("option", { value, selected: value === chosen }, text),
      ),
    );
  }
}

/** The body of POST /similarity. */
export function similarityBody({ queries, documents }, model) {
  return {
    ...(model && { model }),
    queries: queries.texts,
    ...(documents && { documents: documents.texts }),
    ...(queries.instruction !== null && { query_instruction: queries.instruction }),
    ...(documents && documents.instruction !== null && { document_instruction: documents.instruction }),
  };
}

/** The body of POST /embed and /tokenize: both input groups in one request, each text with its own instruction. */
export function embedBody(groups, model) {
  const inputs = Object.values(groups).flatMap(({ texts, instruction }) =>
    texts.map((text) => (instruction === null ? text : { text, instruction })),
  );
  return { ...(model && { model }), inputs };
}

/** Finds the field and line that the `param` of an error names: {label, field, line}, or null. */
export function place(param, groups) {
  const [, list, index, part] = /^(queries|documents|inputs)(?:\[(\d+)\](?:\.(\w+))?)?/.exec(param ?? "") ?? [];
  if (list) {
    const [group, number] = list === "inputs" ? locate(Number(index ?? 0), groups) : [list, Number(index ?? 0)];
    if (part === "instruction") return instructionOf(group);
    const line = index === undefined ? undefined : groups[group]?.lines[number];
    return { label: GROUPS[group].name + (line ? `, line ${line}` : ""), field: GROUPS[group].texts, line };
  }
  if (param === "query_instruction") return instructionOf("queries");
  if (param === "document_instruction") return instructionOf("documents");
  return null;
}

function instructionOf(group) {
  return { label: `Instruction of the ${group}`, field: GROUPS[group].instruction };
}

/** Maps an index into the inputs of `embedBody` to an input group and an index into its texts. */
function locate(index, { queries }) {
  const first = queries.texts.length;
  return index < first ? ["queries", index] : ["documents", index - first];
}

/** Focuses the field and selects the line. */
export function goTo({ field, line }) {
  field.focus();
  if (line) {
    const before = field.value.split("\n").slice(0, line - 1);
    const start = before.reduce((sum, text) => sum + text.length + 1, 0);
    const end = field.value.indexOf("\n", start);
    field.setSelectionRange(start, end < 0 ? field.value.length : end);
  } else {
    field.select();
  }
}
