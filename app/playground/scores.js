// What the views of scores share.

import { fixed } from "./dom.js";

/** The index of the row's highest score, not counting the comparison with itself at `self`; -1 if there is no choice. */
export function bestOf(row, self) {
  let best = -1;
  row.forEach((score, at) => {
    if (at !== self && (best < 0 || score > row[best])) best = at;
  });
  return row.length - (self >= 0) < 2 ? -1 : best;
}

/** A difference with its sign, or nothing if it rounds to zero. */
export function signed(change) {
  const text = fixed(Math.abs(change), 2);
  return Number(text) === 0 ? "" : `${change > 0 ? "+" : "−"}${text}`;
}
