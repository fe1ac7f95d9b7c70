// Labels of points: each at the first place near its point where it covers nothing, else none.

const GAP = 9;

/**
 * Returns [{text, x, y, width, height}…] by centre. `points` are {x, y, names}: the names to try, longest first.
 * `others` are {x, y} of marks without a label. `measure` returns the width of a text; `area` is {left, right, top, bottom}.
 */
export function placeLabels(points, others, measure, area) {
  const taken = [...points, ...others].map(({ x, y }) => ({ x, y, width: 14, height: 14 }));
  const placed = [];
  for (const { x, y, names } of points) {
    const free = (box) => inside(box, area) && !taken.some((other) => overlap(box, other));
    const box = names.flatMap((text) => around(x, y, text, measure(text) + 4)).find(free);
    if (!box) continue;
    taken.push(box);
    placed.push(box);
  }
  return placed;
}

function around(x, y, text, width) {
  const height = 15;
  const [beside, above] = [width / 2 + GAP, height / 2 + GAP];
  const moves = [[beside, 0], [-beside, 0], [0, -above], [0, above], [beside, -above], [beside, above], [-beside, -above], [-beside, above]];
  return moves.map(([dx, dy]) => ({ text, x: x + dx, y: y + dy, width, height }));
}

const inside = ({ x, y, width, height }, { left, right, top, bottom }) =>
  x - width / 2 >= left && x + width / 2 <= right && y - height / 2 >= top && y + height / 2 <= bottom;

const overlap = (a, b) =>
  Math.abs(a.x - b.x) < (a.width + b.width) / 2 && Math.abs(a.y - b.y) < (a.height + b.height) / 2;
