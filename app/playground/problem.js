// Error messages: what failed, which line is at fault, and how to retry.

import { count, find, make } from "./dom.js";
import { goTo, place } from "./form.js";

const TITLES = {
  "-1": "This page failed",
  0: "The service cannot be reached",
  401: "The service requires an API key",
  413: "The request is too large",
  422: "The service rejected a value",
  429: "The service is busy",
  500: "The service failed",
  503: "The service is not ready",
  504: "The request took too long",
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

/** Shows an error of the service. `again` repeats the request. */
export function showProblem(error, groups, again) {
  clearProblem();
  const where = place(error.param, groups);
  const box = make("div", { className: "card problem" });
  box.append(make("h2", {}, TITLES[error.status] ?? "The service rejected the request"));
  box.append(make("p", { id: "problem-message" }, where ? make("b", {}, `${where.label}: `) : "", error.message.replace(`Invalid value for '${error.param}': `, "")));
  if (error.status === 429) box.append(...retry(error.retryAfter, again));
  if (where) {
    mark(where.field);
    box.append(button("Show in the form", () => goTo(where)));
  }
  if (error.type) {
    const code = [error.status, error.type, error.param].filter(Boolean).join(" · ");
    box.append(make("p", { className: "note" }, make("code", {}, code)));
  }
  find("problem").replaceChildren(box);
  box.scrollIntoView({ block: "nearest" });
}

/** Shows a problem that this page detects itself. */
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

/** A countdown to an automatic retry, and buttons to retry at once or to stop. */
function retry(seconds, again) {
  const left = make("span", {}, `Trying again in ${count(seconds, "second")}.`);
  // The text changes every second; screen readers should not announce it.
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
