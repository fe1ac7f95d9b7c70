// The table of texts: their tokens, drawn by role, their counts, and their coordinates on the map.

import { count, find, fixed, make } from "./dom.js";

const MAX_SHOWN = 80; // tokens of a text
const ROLES = { special: "special", template: "template", instruction: "instruction, not pooled", pooled: "pooled" };

/** `items` are those of `compare`. */
export function drawTokens(items) {
  const heads = ["", "Text", "Tokens", ...(items[0].point ? ["x", "y"] : [])];
  find("texts").replaceChildren(
    make(
      "table",
      { className: "texts" },
      make("caption", { className: "visually-hidden" }, "Each text with its token count and its coordinates on the map."),
      make("thead", {}, make("tr", {}, ...heads.map(head))),
      make("tbody", {}, ...items.map(row)),
    ),
  );
  const tokens = items.reduce((sum, item) => sum + item.count, 0);
  const cut = items.filter((item) => item.truncated).length;
  find("tokens-note").textContent = `${count(tokens, "token")}${cut ? `, ${count(cut, "text")} truncated` : ", none truncated"}`;
  const present = new Set(items.flatMap((item) => (item.tokens ?? []).map(kind)));
  find("tokens-legend").replaceChildren(
    ...Object.keys(ROLES).filter((role) => present.has(role)).map((role) => make("span", { className: `token ${role}` }, ROLES[role])),
  );
}

const head = (text) => (text ? make("th", { scope: "col" }, text) : make("td"));

function row({ id, group, text, tokens, count: size, truncated, point }) {
  const words = make("td", {}, tokens ? chips(tokens, text) : make("span", { className: "text", title: text }, text));
  if (truncated) words.append(make("strong", { className: "cut" }, "truncated"));
  const numbers = [String(size), ...(point ? point.map((value) => fixed(value, 3)) : [])];
  return make(
    "tr",
    {},
    make("th", { scope: "row", className: group }, make("b", {}, id)),
    words,
    ...numbers.map((number) => make("td", { className: "number" }, number)),
  );
}

function chips(tokens, text) {
  const made = make("span", { className: "tokens", title: text }, ...tokens.slice(0, MAX_SHOWN).map(chip));
  if (tokens.length > MAX_SHOWN) made.append(make("span", { className: "note" }, `and ${tokens.length - MAX_SHOWN} more`));
  return made;
}

/** Special tokens and the template keep their kind when they are pooled; the model pools each text. */
const kind = ({ role, pooled }) => (role === "text" || (role === "instruction" && pooled) ? "pooled" : role);

function chip(token) {
  const made = make("span", { className: `token ${kind(token)}`, title: `${ROLES[kind(token)]}, id ${token.id}` }, token.text.trim() || "␣");
  if (token.pooled) made.dataset.pooled = "";
  if (token.role !== "special" && !token.text.startsWith(" ")) made.classList.add("joined");
  return made;
}
