// The time of each call: the service's stages (Server-Timing) and the rest, which the network and the browser took.

import { find, fixed, make } from "./dom.js";

/** `calls` are [path, {stages, total}]. */
export function drawTimings(calls) {
  const spans = calls.map(([path, { stages, total }]) => [path, withRest(stages, total), total]);
  const names = [...new Set(spans.flatMap(([, parts]) => parts.map(([name]) => name)))];
  find("timings").replaceChildren(...spans.map((span) => bar(span, names)), table(spans, names));
}

function withRest(stages, total) {
  const known = stages.reduce((sum, [, ms]) => sum + ms, 0);
  return [...stages, ["network, browser", Math.max(0, total - known)]];
}

function bar([path, parts, total], names) {
  const segments = parts.map(([name, ms]) => {
    const segment = make("span", { className: `stage-${names.indexOf(name) % 5}`, title: `${name}: ${fixed(ms, 1)} ms` });
    segment.style.flexGrow = String(ms);
    return segment;
  });
  const made = make("div", { className: "spent" }, make("code", {}, path), make("div", { className: "bar" }, ...segments), `${fixed(total, 1)}`);
  made.setAttribute("aria-hidden", "true");
  return made;
}

function table(spans, names) {
  const value = (parts, name) => parts.find(([stage]) => stage === name)?.[1];
  const rows = names.map((name, index) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, make("i", { className: `dot stage-${index % 5}` }), name),
      ...spans.map(([, parts]) => number(value(parts, name))),
    ),
  );
  const whole = make("tr", { className: "whole" }, make("th", { scope: "row" }, "total"), ...spans.map(([, , total]) => number(total)));
  return make(
    "table",
    { className: "texts" },
    make("caption", { className: "visually-hidden" }, "Milliseconds per call and stage."),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Stage"), ...spans.map(([path]) => make("th", { scope: "col", className: "number" }, path)))),
    make("tbody", {}, ...rows, whole),
  );
}

const number = (ms) => make("td", { className: "number" }, ms === undefined ? "–" : fixed(ms, 2));
