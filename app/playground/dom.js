// DOM helpers. Text is inserted as text, never as markup.

export const find = (id) => document.getElementById(id);

/** Creates an element. `properties` may include a `dataset`; `children` are nodes or strings. */
export function make(tag, properties = {}, ...children) {
  const { dataset = {}, ...rest } = properties;
  const element = document.createElement(tag);
  Object.assign(element, rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** Text for screen readers only. */
export const visuallyHidden = (text) => make("span", { className: "visually-hidden" }, text);

/** Like toFixed, but -0.0001 becomes 0.000, not -0.000. */
export const fixed = (number, digits) => number.toFixed(digits).replace(/^-(0(\.0*)?)$/, "$1");

export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
