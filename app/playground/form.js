// The form: builds request bodies from the lines, and maps the `param` of an error back to a line.

import { count, find, make } from "./dom.js";

export const GROUPS = {
  queries: { name: "Queries", letter: "Q", texts: find("query-texts"), instruction: find("query-instruction") },
  documents: { name: "Documents", letter: "D", texts: find("document-texts"), instruction: find("document-instruction") },
};

const COUNTS = { queries: find("query-count"), documents: find("document-count") };

/** Reads an input group as {texts, lines, instruction}. Blank lines are skipped; `lines` holds each text's line number. */
function readGroup({ texts, instruction }) {
  const filled = texts.value
    .split("\n")
    .map((line, index) => ({ text: line.trim(), line: index + 1 }))
    .filter(({ text }) => text);
  return {
    texts: filled.map(({ text }) => text),
    lines: filled.map(({ line }) => line),
    instruction: instruction.value.trim(),
  };
}

/** Reads the queries and, if there are any, the documents. */
export function read() {
  const queries = readGroup(GROUPS.queries);
  const documents = readGroup(GROUPS.documents);
  return documents.texts.length ? { queries, documents } : { queries };
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
    ...(queries.instruction && { query_instruction: queries.instruction }),
    ...(documents?.instruction && { document_instruction: documents.instruction }),
  };
}

/** The body of POST /embed: both input groups in one request, each text with its own instruction. */
export function embedBody(groups, model) {
  const inputs = Object.values(groups).flatMap(({ texts, instruction }) =>
    texts.map((text) => (instruction ? { text, instruction } : text)),
  );
  return { ...(model && { model }), inputs, encoding_format: "base64" };
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
