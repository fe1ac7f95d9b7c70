// The table of texts: token counts, truncation and coordinates on the map.

import { count, find, fixed, make } from "./dom.js";

/** `items` are {id, group, text, tokens, truncated} and, once the map is drawn, `point`. */
export function drawTexts(items) {
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
  const tokens = items.reduce((sum, item) => sum + item.tokens, 0);
  const cut = items.filter((item) => item.truncated).length;
  find("tokens-note").textContent = `${count(tokens, "token")}${cut ? `, ${count(cut, "text")} truncated` : ", none truncated"}`;
}

const head = (text) => (text ? make("th", { scope: "col" }, text) : make("td"));

function row({ id, group, text, tokens, truncated, point }) {
  const words = make("td", {}, make("span", { className: "text", title: text }, text));
  if (truncated) words.append(make("strong", { className: "cut" }, "truncated"));
  const numbers = [String(tokens), ...(point ? point.map((value) => fixed(value, 3)) : [])];
  return make(
    "tr",
    {},
    make("th", { scope: "row", className: group }, make("b", {}, id)),
    words,
    ...numbers.map((number) => make("td", { className: "number" }, number)),
  );
}
