// Small helpers around the document. Text always goes in as text, never as markup.

export const find = (id) => document.getElementById(id);

/** An element with properties (a `dataset` among them) and children, which are nodes or strings. */
export function make(tag, properties = {}, ...children) {
  const { dataset = {}, ...rest } = properties;
  const element = document.createElement(tag);
  Object.assign(element, rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

export const unseen = (text) => make("span", { className: "unseen" }, text);

/** A number without a lone minus: -0.0001 is 0.000. */
export const fixed = (number, digits) => number.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1");

export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
