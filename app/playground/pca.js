// The first two principal components of a few hundred vectors, by power iteration on the centred matrix.

const TOLERANCE = 1e-10;

/** Returns {points, shares}: two coordinates for each vector, and each axis's share of the variance. */
export function project(vectors) {
  const rows = center(vectors);
  const total = rows.reduce((sum, row) => sum + dot(row, row), 0);
  const points = rows.map(() => [0, 0]);
  const shares = [0, 0];
  for (const axis of [0, 1]) {
    const direction = principal(rows);
    if (!direction) break;
    const along = rows.map((row) => dot(row, direction));
    const sign = turn(along);
    along.forEach((value, index) => {
      points[index][axis] = sign * value;
      subtract(rows[index], direction, value);
    });
    shares[axis] = total > 0 ? dot(along, along) / total : 0;
  }
  return { points, shares };
}

function center(vectors) {
  const size = vectors[0].length;
  const mean = new Float64Array(size);
  for (const vector of vectors) for (let i = 0; i < size; i++) mean[i] += vector[i] / vectors.length;
  return vectors.map((vector) => Float64Array.from(vector, (value, i) => value - mean[i]));
}

/** The unit vector along which the rows vary most, or null if they do not vary. */
function principal(rows) {
  // Start from the longest row: except in contrived cases, it is not orthogonal to the component.
  const lengths = rows.map((row) => dot(row, row));
  const longest = Math.max(...lengths);
  if (longest < 1e-12) return null;
  let direction = scaled(Float64Array.from(rows[lengths.indexOf(longest)]));
  const most = Math.max(20, Math.min(1000, 5e8 / (rows.length * direction.length)));
  for (let step = 0; step < most; step++) {
    const next = new Float64Array(direction.length);
    for (const row of rows) subtract(next, row, -dot(row, direction));
    scaled(next);
    const moved = 1 - Math.abs(dot(next, direction));
    direction = next;
    if (moved < TOLERANCE) break;
  }
  return direction;
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** a -= factor · b */
function subtract(a, b, factor) {
  for (let i = 0; i < a.length; i++) a[i] -= factor * b[i];
}

function scaled(vector) {
  const length = Math.sqrt(dot(vector, vector));
  for (let i = 0; i < vector.length; i++) vector[i] /= length;
  return vector;
}

/** The sign of an axis is arbitrary; this choice is the same on every run. */
function turn(values) {
  const largest = values.reduce((best, value) => (Math.abs(value) > Math.abs(best) + 1e-9 ? value : best), 0);
  return largest < 0 ? -1 : 1;
}
