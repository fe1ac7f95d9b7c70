// The calls of one run: the scores of one or two variants, the vectors for the map, and the tokens.

import { call } from "./api.js";
import { GROUPS, embedBody, similarityBody, withoutInstructions } from "./form.js";
import { project } from "./pca.js";

const MAX_TOKENIZED = 200; // texts whose tokens are shown

/**
 * Compares the groups with the chosen models. With one model and an instruction, the second variant is the model without
 * the instruction; with two models, it is the second one.
 *
 * Calls `show` after each response with {variants, items, calls, shares}. `variants` are one or two {title, scores}.
 * `items` are the texts, queries first: {id, group, text, count, truncated} and, once known, `point`, `before` (the point
 * without instructions) and `tokens`. `calls` are [name, {stages, total}]. `shares` is each axis's share of the variance.
 */
export async function compare(groups, [model, other], signal, show) {
  const plain = other ? null : withoutInstructions(groups);
  const result = { variants: [], items: [], calls: [], shares: null };
  const request = async (path, body, note = "") => {
    const response = await call(path, body, signal);
    result.calls.push([`/${path}${note}`, response]);
    return response.content;
  };
  const first = await request("similarity", similarityBody(groups, model));
  result.items = textsOf(groups, first);
  result.variants.push({ title: other ? first.model : plain ? "with instruction" : "", scores: first.scores });
  show(result);
  if (other || plain) {
    const body = plain ? similarityBody(plain, model) : similarityBody(groups, other);
    const second = await request("similarity", body, plain ? " without" : " second");
    result.variants.push({ title: plain ? "without instruction" : second.model, scores: second.scores, plain: Boolean(plain) });
    show(result);
  }
  const vectors = await request("embed", { ...embedBody(groups, model), encoding_format: "base64" });
  const before = plain && (await request("embed", { ...embedBody(plain, model), encoding_format: "base64" }, " without"));
  result.shares = place(result.items, vectors, before);
  show(result);
  const { inputs, ...rest } = embedBody(groups, model);
  const { tokens } = await request("tokenize", { ...rest, inputs: inputs.slice(0, MAX_TOKENIZED) });
  tokens.forEach((row, index) => {
    result.items[index].tokens = row;
  });
  show(result);
  return result;
}

function textsOf(groups, { tokens, truncated }) {
  return Object.entries(groups).flatMap(([group, { texts }]) =>
    texts.map((text, index) => ({
      id: `${GROUPS[group].letter}${index + 1}`,
      group,
      text,
      count: tokens[group][index],
      truncated: truncated[group].includes(index),
    })),
  );
}

/** Gives each item its points. All vectors share the axes, so that a move is a move of the vector. */
function place(items, vectors, before) {
  const all = [vectors, ...(before ? [before] : [])].flatMap(({ embeddings }) => embeddings.map(decode));
  const { points, shares } = project(all);
  items.forEach((item, index) => {
    item.point = points[index];
    if (before) item.before = points[items.length + index];
  });
  return shares;
}

/** Decodes base64 of little-endian float32 numbers. */
function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
