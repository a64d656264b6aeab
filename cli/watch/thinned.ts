/** A table thinned to what a screen can show. */
import type { JsonWriter } from "./json_writer.ts";
import { placeOf, type Table } from "./overview.ts";

export interface Thinning {
  readonly from: number; // steps, both included
  readonly to: number;
  readonly points: number; // rows of the result, at most about so many
  /** `extremes` keeps the smallest and the largest value of every stretch, so that no spike is lost; `sums` adds up. */
  readonly keep: "extremes" | "sums";
  /** Steps over which an exponential moving average smooths; null: no average. */
  readonly smoothing: number | null;
  /** Rows before those of the table, for the average. */
  readonly before?: Table;
}

export interface Thinned {
  readonly steps: readonly number[];
  readonly columns: Readonly<Record<string, readonly (number | null)[]>>;
  /** The moving averages of the same columns. */
  readonly smooth: Readonly<Record<string, readonly (number | null)[]>>;
}

/** Rows in the range, and one beyond each end where there is one, so that lines go on to the edge. */
export const thinned = (table: Table, thinning: Thinning): Thinned => {
  const { steps, column, smooth } = thinner(table, thinning);
  const each = (values: (name: string) => Float64Array) =>
    Object.fromEntries([...table.columns.keys()].map((name) => [name, Array.from(values(name), rounded)]));
  return {
    steps: [...steps()],
    columns: each(column),
    smooth: thinning.smoothing === null ? {} : each(smooth),
  };
};

/** The same, as the properties of a JSON object. */
export const writeThinned = (json: JsonWriter, table: Table, thinning: Thinning): void => {
  const { steps, column, smooth } = thinner(table, thinning);
  const each = (values: (name: string) => Float64Array) => {
    let separator = "{";
    for (const name of table.columns.keys()) {
      json.text(`${separator}${JSON.stringify(name)}:`);
      json.numbers(values(name));
      separator = ",";
    }
    json.text(separator === "{" ? "{}" : "}");
  };
  json.text('"steps":');
  json.integers(steps());
  json.text(',"columns":');
  each(column);
  json.text(',"smooth":');
  if (thinning.smoothing === null) json.text("{}");
  else each(smooth);
};

/** What gives each column of the result, in an array that the next one takes over. */
const thinner = (table: Table, { from, to, points, keep, smoothing, before }: Thinning) => {
  const { rows, steps, columns, merged } = table;
  const [lasts, counts] = [merged?.lasts ?? steps, merged?.counts];
  const first = Math.max(0, placeOf(lasts, from) - 1);
  const end = Math.min(rows, placeOf(steps, to) + 2);
  const stretches = Math.min(end - first, Math.max(1, points >> 1));
  const bound = (stretch: number) => first + Math.round(stretch * (end - first) / stretches);
  const isWhole = merged === undefined && stretches === end - first; // every step is a stretch of its own
  const width = isWhole || keep === "sums" ? 1 : 2; // values of a stretch
  const values = new Float64Array(width * stretches);
  return {
    steps: (): Float64Array => {
      for (let i = 0; i < stretches; i++) {
        values[width * i] = steps[bound(i)];
        values[width * (i + 1) - 1] = lasts[bound(i + 1) - 1];
      }
      return values;
    },
    column: (name: string): Float64Array => {
      const column = columns.get(name)!;
      const [lows, highs] = [merged?.lows.get(name) ?? column, merged?.highs.get(name) ?? column];
      for (let i = 0; i < stretches; i++) {
        if (keep === "sums") values[i] = sumOf(column, counts, bound(i), bound(i + 1));
        else if (isWhole) values[i] = column[bound(i)];
        else setExtremes(values, 2 * i, lows, highs, bound(i), bound(i + 1));
      }
      return values;
    },
    smooth: (name: string): Float64Array => {
      const average = movingAverage(smoothing!);
      if (before?.columns.has(name)) average.add(before, name, 0, before.rows);
      average.add(table, name, 0, first);
      for (let i = 0; i < stretches; i++) {
        average.add(table, name, bound(i), bound(i) + 1);
        values[width * i] = average.value();
        average.add(table, name, bound(i) + 1, bound(i + 1));
        values[width * (i + 1) - 1] = average.value();
      }
      return values;
    },
  };
};

/** Exponential moving average that forgets over `window` steps, without a bias towards 0 at the start. */
const movingAverage = (window: number) => {
  const keptOfStep = 1 - 1 / Math.max(1, window);
  const [SUM, WEIGHT] = [0, 1];
  const state = new Float64Array(2); // in variables each new number would be an object of its own
  return {
    value: () => state[WEIGHT] > 0 ? state[SUM] / state[WEIGHT] : NaN,
    /** Takes in the rows of a column from `first` to before `end`. */
    add: ({ columns, merged }: Table, name: string, first: number, end: number): void => {
      const column = columns.get(name)!;
      for (let i = first; i < end; i++) {
        if (Number.isNaN(column[i])) continue;
        const kept = merged === undefined ? keptOfStep : keptOfStep ** merged.counts[i];
        state[SUM] = kept * state[SUM] + (1 - kept) * column[i];
        state[WEIGHT] = kept * state[WEIGHT] + (1 - kept);
      }
    },
  };
};

const sumOf = (
  column: Float64Array,
  counts: Float64Array | undefined,
  first: number,
  end: number,
): number => {
  let sum = 0;
  for (let i = first; i < end; i++) if (!Number.isNaN(column[i])) sum += column[i] * (counts?.[i] ?? 1);
  return sum;
};

/** Sets the smallest and the largest of a stretch in the order in which they come, as far as the rows tell. */
const setExtremes = (
  values: Float64Array,
  place: number,
  lows: Float64Array,
  highs: Float64Array,
  first: number,
  end: number,
): void => {
  let [low, high] = [-1, -1];
  for (let i = first; i < end; i++) {
    if (Number.isNaN(lows[i])) continue;
    if (low < 0 || lows[i] < lows[low]) low = i;
    if (high < 0 || highs[i] > highs[high]) high = i;
  }
  const isRising = low <= high;
  values[place] = low < 0 ? NaN : isRising ? lows[low] : highs[high];
  values[place + 1] = low < 0 ? NaN : isRising ? highs[high] : lows[low];
};

/** Six digits are more than a screen shows. */
const rounded = (value: number): number | null =>
  Number.isFinite(value) ? Number(value.toPrecision(6)) : null;
