// The form: from lines to requests, and from the places that errors name back to lines.

import { count, find } from "./dom.js";

export const SIDES = {
  queries: { name: "Queries", letter: "Q", texts: find("query-texts"), instruction: find("query-instruction") },
  documents: { name: "Documents", letter: "D", texts: find("document-texts"), instruction: find("document-instruction") },
};

const COUNTS = { queries: find("query-count"), documents: find("document-count") };

/** One side as {texts, lines, instruction}; blank lines are left out, `lines` are the numbers of those that stay. */
function readSide({ texts, instruction }) {
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

/** The sides that have texts, in order. */
export function read() {
  const queries = readSide(SIDES.queries);
  const documents = readSide(SIDES.documents);
  return documents.texts.length ? { queries, documents } : { queries };
}

export function showCounts() {
  for (const [side, element] of Object.entries(COUNTS)) {
    element.textContent = count(readSide(SIDES[side]).texts.length, "text");
  }
}

/** The body of POST /similarity. */
export function similarityBody({ queries, documents }) {
  return {
    queries: queries.texts,
    ...(documents && { documents: documents.texts }),
    ...(queries.instruction && { query_instruction: queries.instruction }),
    ...(documents?.instruction && { document_instruction: documents.instruction }),
  };
}

/** The body of POST /embed: both sides in one call, each text with its own instruction. */
export function embedBody(sides) {
  const inputs = Object.values(sides).flatMap(({ texts, instruction }) =>
    texts.map((text) => (instruction ? { text, instruction } : text)),
  );
  return { inputs, encoding_format: "base64" };
}

/** Where in the form the place is that an error names: {label, field, line}, or null. */
export function place(param, sides) {
  const [, list, index, part] = /^(queries|documents|inputs)(?:\[(\d+)\](?:\.(\w+))?)?/.exec(param ?? "") ?? [];
  if (list) {
    const [side, number] = list === "inputs" ? locate(Number(index ?? 0), sides) : [list, Number(index ?? 0)];
    if (part === "instruction") return instructionOf(side);
    const line = index === undefined ? undefined : sides[side]?.lines[number];
    return { label: SIDES[side].name + (line ? `, line ${line}` : ""), field: SIDES[side].texts, line };
  }
  if (param === "query_instruction") return instructionOf("queries");
  if (param === "document_instruction") return instructionOf("documents");
  return null;
}

function instructionOf(side) {
  return { label: `Instruction of the ${side}`, field: SIDES[side].instruction };
}

/** Which side, and which text there, an input of `embedBody` came from. */
function locate(index, { queries }) {
  const first = queries.texts.length;
  return index < first ? ["queries", index] : ["documents", index - first];
}

/** Puts the cursor where an error is, the line selected. */
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
