/** Reduces a table to as many rows as a screen can show. */
import { placeOf, type Table } from "./growing_table.ts";

export interface Thinning {
  readonly from: number; // steps, both included
  readonly to: number;
  readonly points: number; // rows of the result, at most about so many
  /** `extremes` keeps the smallest and the largest value of every stretch, so that no spike is lost; `sums` adds up. */
  readonly keep: "extremes" | "sums";
  /** Steps over which an exponential moving average smooths; null: no average. */
  readonly smoothing: number | null;
}

export interface Thinned {
  readonly steps: readonly number[];
  readonly columns: Readonly<Record<string, readonly (number | null)[]>>;
  /** The moving averages of the same columns. */
  readonly smooth: Readonly<Record<string, readonly (number | null)[]>>;
}

/** The rows in the range and one beyond each end, so that lines reach the edges of a chart. */
export const thinned = (
  { rows, steps, columns }: Table,
  { from, to, points, keep, smoothing }: Thinning,
): Thinned => {
  const first = Math.max(0, placeOf(steps, from) - 1);
  const end = Math.min(rows, placeOf(steps, to) + 2);
  const stretches = Math.min(end - first, Math.max(1, points >> 1));
  const whole = stretches === end - first; // each stretch is one row
  const bounds = Array.from(
    { length: stretches + 1 },
    (_, i) => first + Math.round(i * (end - first) / stretches),
  );
  const single = whole || keep === "sums";
  const result: number[] = [];
  for (let i = 0; i < stretches; i++) {
    if (!single) result.push(steps[bounds[i]]);
    result.push(steps[bounds[i + 1] - 1]);
  }
  const pick = single ? (keep === "sums" ? sumOf : lastOf) : extremesOf;
  const thin = (column: Float64Array, pick: Pick) => {
    const values: number[] = [];
    for (let i = 0; i < stretches; i++) values.push(...pick(column, bounds[i], bounds[i + 1]));
    return values.map(written);
  };
  const all = [...columns];
  return {
    steps: result,
    columns: Object.fromEntries(all.map(([name, column]) => [name, thin(column, pick)])),
    smooth: smoothing === null ? {} : Object.fromEntries(all.map(([name, column]) => [
      name,
      thin(averaged(column.subarray(0, end), smoothing), single ? lastOf : endsOf),
    ])),
  };
};

type Pick = (column: Float64Array, first: number, end: number) => readonly number[];

const lastOf: Pick = (column, _, end) => [column[end - 1]];
const endsOf: Pick = (column, first, end) => [column[first], column[end - 1]];

const sumOf: Pick = (column, first, end) => {
  let sum = 0;
  for (let i = first; i < end; i++) if (!Number.isNaN(column[i])) sum += column[i];
  return [sum];
};

/** The smallest and the largest value of a stretch, in the order of their rows. */
const extremesOf: Pick = (column, first, end) => {
  let [low, high] = [-1, -1];
  for (let i = first; i < end; i++) {
    if (Number.isNaN(column[i])) continue;
    if (low < 0 || column[i] < column[low]) low = i;
    if (high < 0 || column[i] > column[high]) high = i;
  }
  if (low < 0) return [NaN, NaN];
  return low < high ? [column[low], column[high]] : [column[high], column[low]];
};

/** Exponential moving average over about `window` steps, corrected for its bias towards 0 at the start. */
const averaged = (column: Float64Array, window: number): Float64Array => {
  const keep = 1 - 1 / Math.max(1, window);
  const result = new Float64Array(column.length);
  let [sum, weight] = [0, 0];
  for (let i = 0; i < column.length; i++) {
    if (!Number.isNaN(column[i])) {
      sum = keep * sum + (1 - keep) * column[i];
      weight = keep * weight + (1 - keep);
    }
    result[i] = weight > 0 ? sum / weight : NaN;
  }
  return result;
};

/** Rounds to six digits, more than a screen shows. */
const written = (value: number): number | null =>
  Number.isFinite(value) ? Number(value.toPrecision(6)) : null;
