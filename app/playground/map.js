// The map of the texts, drawn by Chart.js on a canvas. The table of texts lists the same coordinates.

import { token } from "./colors.js";
import { count, find } from "./dom.js";

const MAX_LABELS = 60; // more labels would cover the points
const SHAPES = { queries: "circle", documents: "rectRot" };
const COLORS = { queries: "--query", documents: "--document" };
const NAMES = { queries: "Queries", documents: "Documents" };

let chart = null;

/** `items` are {id, group, text, point}; `shares` is each axis's share of the variance. */
export function drawMap(items, shares) {
  chart?.destroy();
  const canvas = find("map");
  const axes = shares.map((share, axis) => `component ${axis + 1}, ${Math.round(100 * share)} % of the variance`);
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12 };
  chart = new globalThis.Chart(canvas, {
    type: "scatter",
    data: { datasets: Object.keys(NAMES).map((group) => dataset(group, items)).filter(({ data }) => data.length) },
    plugins: [names(font, items.length <= MAX_LABELS)],
    options: {
      animation: false,
      maintainAspectRatio: false,
      font,
      layout: { padding: { right: 8 } },
      scales: scales(items, axes, font),
      plugins: {
        legend: { position: "bottom", labels: { color: token("--ink"), font, usePointStyle: true, padding: 16 } },
        tooltip: { callbacks: { label: ({ raw }) => `${raw.id}: ${short(raw.text)}` }, usePointStyle: true },
      },
    },
  });
  canvas.setAttribute(
    "aria-label",
    `Map of ${count(items.length, "text")}. Across: ${axes[0]}. Up: ${axes[1]}. The coordinates are in the table of tokens.`,
  );
}

export function clearMap() {
  chart?.destroy();
  chart = null;
  find("map").setAttribute("aria-label", "No map yet.");
}

const short = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);

function dataset(group, items) {
  return {
    label: NAMES[group],
    data: items.filter((item) => item.group === group).map(({ id, text, point: [x, y] }) => ({ x, y, id, text })),
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
  const most = Math.max(1e-6, ...items.flatMap(({ point }) => point.map(Math.abs)));
  const reach = Number((1.15 * most).toPrecision(2));
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

/** A plugin that labels each point in the first adjacent position that covers nothing. */
function names(font, wanted) {
  return {
    id: "names",
    afterDatasetsDraw(drawn) {
      if (wanted) label(drawn, font);
    },
  };
}

function label(drawn, font) {
  const { ctx, chartArea } = drawn;
  const points = drawn
    .getSortedVisibleDatasetMetas()
    .flatMap(({ data, index }) => data.map(({ x, y }, at) => ({ x, y, name: drawn.data.datasets[index].data[at].id })));
  const taken = points.map(({ x, y }) => ({ x, y, width: 14, height: 14 }));
  ctx.save();
  Object.assign(ctx, { font: `600 12px ${font.family}`, textBaseline: "middle", textAlign: "center" });
  ctx.fillStyle = token("--ink");
  for (const { x, y, name } of points) {
    const [width, height] = [ctx.measureText(name).width, 13];
    const beside = width / 2 + 12;
    const boxes = [[beside, 0], [-beside, 0], [0, -16], [0, 16]].map(([dx, dy]) => ({ x: x + dx, y: y + dy, width, height }));
    const free = (box) => inside(box, chartArea) && !taken.some((other) => overlap(box, other));
    const box = boxes.find(free) ?? boxes[0];
    taken.push(box);
    ctx.fillText(name, box.x, box.y);
  }
  ctx.restore();
}

const inside = ({ x, width }, { left, right }) => x - width / 2 >= left && x + width / 2 <= right;

const overlap = (a, b) =>
  Math.abs(a.x - b.x) < (a.width + b.width) / 2 && Math.abs(a.y - b.y) < (a.height + b.height) / 2;
