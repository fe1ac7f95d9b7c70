// The map of the texts, drawn by Chart.js on a canvas. The table of texts lists the same coordinates.

import { token } from "./colors.js";
import { count, find } from "./dom.js";
import { placeLabels } from "./labels.js";

const MAX_LABELS = 60; // more labels would cover the map
const SHAPES = { queries: "circle", documents: "rectRot" };
const COLORS = { queries: "--query", documents: "--document" };
const NAMES = { queries: "Queries", documents: "Documents" };
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

let chart = null;
let shown = []; // the items of the chart
let before = false; // whether the points are those without instructions

/**
 * `items` are {id, group, text, point} and, if there are instructions, `before`, the point without them. `shares` is each
 * axis's share of the variance. With `move`, the points start at `before` and move to `point`.
 */
export function drawMap(items, shares, move) {
  chart?.destroy();
  shown = items;
  const movable = Boolean(items[0].before);
  find("moves").hidden = find("ring").hidden = !movable;
  const canvas = find("map");
  const axes = shares.map((share, axis) => `component ${axis + 1}, ${Math.round(100 * share)} % of the variance`);
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
  before = movable && move;
  find("move-with").checked = true;
  chart = new globalThis.Chart(canvas, {
    type: "scatter",
    data: { datasets: Object.keys(NAMES).map((group) => dataset(group, items)).filter(({ data }) => data.length) },
    plugins: [{ id: "marks", beforeDatasetsDraw: drawMoves, afterDatasetsDraw: (drawn) => drawLabels(drawn, font) }],
    options: {
      animation: false,
      maintainAspectRatio: false,
      font,
      layout: { padding: { right: 8 } },
      scales: scales(items, axes, font),
      plugins: {
        legend: { position: "bottom", labels: { color: token("--ink"), font, usePointStyle: true, padding: 16 } },
        tooltip: { callbacks: { label: ({ raw }) => `${raw.id}: ${short(raw.text, 60)}` }, usePointStyle: true },
      },
    },
  });
  canvas.setAttribute(
    "aria-label",
    `Map of ${count(items.length, "text")}. Across: ${axes[0]}. Up: ${axes[1]}. The coordinates are in the table of tokens.`,
  );
  if (before) movePoints(false);
}

/** Moves the points to where they are without instructions, or back. */
export function movePoints(to) {
  before = to;
  find(to ? "move-without" : "move-with").checked = true;
  for (const set of chart.data.datasets) {
    for (const data of set.data) [data.x, data.y] = position(shown[data.index]);
  }
  chart.options.animation = STILL.matches ? false : { duration: 900, easing: "easeInOutCubic" };
  chart.update();
}

export function clearMap() {
  chart?.destroy();
  chart = null;
  find("moves").hidden = find("ring").hidden = true;
  find("map").setAttribute("aria-label", "No map yet.");
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1).trimEnd()}…` : text);

const position = (item) => (before && item.before) || item.point;

function dataset(group, items) {
  const points = items.map((item, index) => ({ ...item, index })).filter((item) => item.group === group);
  return {
    label: NAMES[group],
    data: points.map(({ id, text, index }) => {
      const [x, y] = position(items[index]);
      return { x, y, id, text, index };
    }),
    backgroundColor: token(COLORS[group]),
    borderColor: token("--card"),
    borderWidth: 1.5,
    pointStyle: SHAPES[group],
    radius: 7,
    hoverRadius: 9,
  };
}

/** Both axes share one range, so that distances are comparable in every direction. */
function scales(items, axes, font) {
  const all = items.flatMap(({ point, before: other = point }) => [...point, ...other]);
  const reach = Number((1.15 * Math.max(1e-6, ...all.map(Math.abs))).toPrecision(2));
  const axis = (text) => ({
    min: -reach,
    max: reach,
    title: { display: true, text, color: token("--quiet"), font },
    ticks: { maxTicksLimit: 7, color: token("--quiet"), font: { ...font, size: 11 }, includeBounds: false },
    grid: { color: ({ tick }) => token(tick.value === 0 ? "--edge-strong" : "--edge") },
    border: { display: false },
  });
  return { x: axis(axes[0]), y: axis(axes[1]) };
}

/** The points as drawn: {x, y, data}. */
const drawnPoints = (drawn) =>
  drawn.getSortedVisibleDatasetMetas().flatMap(({ data, index }) =>
    data.map(({ x, y }, at) => ({ x, y, data: drawn.data.datasets[index].data[at] })));

/** A line from each point's other position, which gets a ring. */
function drawMoves(drawn) {
  const { ctx, scales: { x: across, y: up } } = drawn;
  ctx.save();
  ctx.lineWidth = 1.5;
  drawn.rings = [];
  for (const { x, y, data } of drawnPoints(drawn)) {
    const item = shown[data.index];
    if (!item.before) continue;
    const [left, top] = before ? item.point : item.before;
    const [toX, toY] = [across.getPixelForValue(left), up.getPixelForValue(top)];
    if (Math.hypot(toX - x, toY - y) < 3) continue;
    drawn.rings.push({ x: toX, y: toY });
    ctx.strokeStyle = token(COLORS[item.group]);
    ctx.globalAlpha = 0.55;
    ctx.beginPath();
    ctx.moveTo(x, y);
    ctx.lineTo(toX, toY);
    ctx.stroke();
    ctx.beginPath();
    ctx.arc(toX, toY, 4, 0, 2 * Math.PI);
    ctx.fillStyle = token("--card");
    ctx.globalAlpha = 1;
    ctx.fill();
    ctx.stroke();
  }
  ctx.restore();
}

function drawLabels(drawn, font) {
  const points = drawnPoints(drawn);
  const { ctx, chartArea } = drawn;
  ctx.save();
  Object.assign(ctx, { font: `600 12px ${font.family}`, textBaseline: "middle", textAlign: "center", fillStyle: token("--ink") });
  const named = points.map(({ x, y, data: { id, text } }) => ({ x, y, names: points.length > 20 ? [id] : [`${id} ${short(text, 18)}`, id] }));
  drawn.labels = points.length > MAX_LABELS ? [] : placeLabels(named, drawn.rings, (text) => ctx.measureText(text).width, chartArea);
  for (const { text, x, y } of drawn.labels) ctx.fillText(text, x, y);
  ctx.restore();
}
