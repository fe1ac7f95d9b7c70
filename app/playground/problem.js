// What went wrong, where, and what can be done about it.

import { count, find, make } from "./dom.js";
import { goTo, place } from "./form.js";

const TITLES = {
  "-1": "This page failed",
  0: "The service is out of reach",
  401: "The service asks for a key",
  413: "That is too much for one request",
  422: "The service refuses a value",
  429: "The service is busy",
  500: "The service failed",
  503: "The service is not ready",
  504: "That took too long",
};

let timer = 0;
let marked = null;

export function clearProblem() {
  clearInterval(timer);
  marked?.removeAttribute("aria-invalid");
  marked?.removeAttribute("aria-describedby");
  marked = null;
  find("problem").replaceChildren();
}

/** Shows an error of the service; `again` makes the same request once more. */
export function showProblem(error, sides, again) {
  clearProblem();
  const where = place(error.param, sides);
  const box = make("div", { className: "card problem" });
  box.append(make("h2", {}, TITLES[error.status] ?? "The service refuses the request"));
  box.append(make("p", { id: "problem-message" }, where ? make("b", {}, `${where.label}: `) : "", error.message.replace(`Invalid value for '${error.param}': `, "")));
  if (error.status === 429) box.append(...retry(error.retryAfter, again));
  if (where) {
    mark(where.field);
    box.append(button("Show the place", () => goTo(where)));
  }
  if (error.type) {
    const code = [error.status, error.type, error.param].filter(Boolean).join(" · ");
    box.append(make("p", { className: "note" }, make("code", {}, code)));
  }
  find("problem").replaceChildren(box);
  box.scrollIntoView({ block: "nearest" });
}

/** A problem that is seen without asking the service. */
export function showMissing(field, message) {
  clearProblem();
  mark(field);
  find("problem").replaceChildren(
    make("div", { className: "card problem" }, make("h2", {}, "Nothing to compare"), make("p", { id: "problem-message" }, message)),
  );
  field.focus();
}

function mark(field) {
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", "problem-message");
  marked = field;
}

function button(text, react) {
  const made = make("button", { type: "button" }, text);
  made.addEventListener("click", react);
  return made;
}

/** A countdown to the next attempt, which is made by itself; the button makes it at once. */
function retry(seconds, again) {
  const left = make("span", {}, `Trying again in ${count(seconds, "second")}.`);
  // It changes every second: to be looked at, not to be read out.
  left.setAttribute("role", "timer");
  left.setAttribute("aria-live", "off");
  const due = performance.now() + 1000 * seconds;
  timer = setInterval(() => {
    const remaining = Math.ceil((due - performance.now()) / 1000);
    left.textContent = `Trying again in ${count(Math.max(0, remaining), "second")}.`;
    if (remaining <= 0) again();
  }, 250);
  const stop = () => {
    clearProblem();
    find("run").focus();
  };
  return [make("p", { className: "retry" }, button("Try again now", again), button("Stop trying", stop), left)];
}
