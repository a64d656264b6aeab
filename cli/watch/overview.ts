/**
 * The numbers of a run by step, in bounded memory. As long as there is room each row is one step; then each row stands for
 * two consecutive steps, then for four, and so on, and keeps their mean, their smallest and their largest value.
 */

/** Columns by name, each with a number a row; NaN where no step of a row has it. */
export interface Table {
  readonly rows: number;
  /** [rows] the first step of each row; ascending. */
  readonly steps: Float64Array;
  /** Means over the steps of a row, [at least rows]. */
  readonly columns: ReadonlyMap<string, Float64Array>;
  /** Absent where each row is one step. */
  readonly merged?: Merged;
}

export interface Merged {
  /** [rows] the last step of each row, and how many it stands for. */
  readonly lasts: Float64Array;
  readonly counts: Float64Array;
  /** The smallest and the largest value of a row's steps, [at least rows]. */
  readonly lows: ReadonlyMap<string, Float64Array>;
  readonly highs: ReadonlyMap<string, Float64Array>;
}

const FEWEST_ROWS = 64;
export const MOST_ROWS = 4096;
export const MOST_COLUMNS = 100;
const LONGEST_NAME = 100; // characters of a column's
const DEEPEST = 3; // objects within each other that become "outer.inner"
const LARGEST_STEP = 1e9;
const LARGEST = 1e30; // absolute value that can be drawn; larger ones count as missing

interface Column {
  mean: Float64Array;
  low: Float64Array;
  high: Float64Array;
  latest: number; // of the last step; NaN where it has none
}

/** An overview of at most `mostNumbers` numbers; fewer where that has become less since, from the next `fit` on. */
export const overview = (mostNumbers: () => number, mostRows = MOST_ROWS) => {
  let [rows, capacity, stride] = [0, mostRows, 1];
  const index = {
    steps: empty(capacity),
    lasts: empty(capacity),
    counts: empty(capacity),
    places: empty(capacity),
  };
  const columns = new Map<string, Column>();
  let byName: Readonly<Record<"means" | "lows" | "highs", Map<string, Float64Array>>> | null = null;
  let leftOut = false;

  const numbers = () => capacity * (Object.keys(index).length + 3 * columns.size);

  const clear = () => {
    [rows, stride, leftOut, byName] = [0, 1, false, null];
    columns.clear();
  };

  /** Makes one row of every two. */
  const merge = () => {
    const { steps, lasts, counts, places } = index;
    const half = Math.ceil(rows / 2);
    for (const { mean, low, high } of columns.values()) {
      for (let i = 0; i < half; i++) {
        const [a, b] = [2 * i, Math.min(2 * i + 1, rows - 1)];
        mean[i] = meanOf(mean[a], counts[a], mean[b], counts[b]);
        low[i] = smaller(low[a], low[b]);
        high[i] = larger(high[a], high[b]);
      }
      for (const values of [mean, low, high]) values.fill(NaN, half);
    }
    for (let i = 0; i < half; i++) {
      const [a, b] = [2 * i, Math.min(2 * i + 1, rows - 1)];
      counts[i] = a === b ? counts[a] : counts[a] + counts[b];
      [steps[i], lasts[i], places[i]] = [steps[a], lasts[b], places[a]];
    }
    [rows, stride] = [half, 2 * stride];
  };

  const fit = () => {
    while (capacity > FEWEST_ROWS && numbers() > mostNumbers()) {
      if (rows > capacity / 2) merge();
      capacity = Math.ceil(capacity / 2);
      byName = null;
      const shortened = (values: Float64Array) => values.slice(0, capacity);
      for (const name of ["steps", "lasts", "counts", "places"] as const) {
        index[name] = shortened(index[name]);
      }
      for (const column of columns.values()) {
        for (const name of ["mean", "low", "high"] as const) column[name] = shortened(column[name]);
      }
    }
  };

  /** Drops the rows that have this step or a later one. */
  const forgetFrom = (step: number) => {
    rows = placeOf(index.lasts.subarray(0, rows), step);
    for (const { mean, low, high } of columns.values()) {
      for (const values of [mean, low, high]) values.fill(NaN, rows);
    }
  };

  /** Takes down a number, or those of an object, as what the last step has. */
  const collect = (name: string, value: unknown, depth: number) => {
    if (typeof value === "number") {
      if (!(Math.abs(value) <= LARGEST)) return;
      const column = columns.get(name);
      if (column !== undefined) column.latest = value;
      else if (columns.size >= MOST_COLUMNS || name.length > LONGEST_NAME) leftOut = true;
      else {
        const [mean, low, high] = [empty(capacity), empty(capacity), empty(capacity)];
        columns.set(name, { mean, low, high, latest: value });
        byName = null;
        fit();
      }
    } else if (typeof value === "object" && value !== null && !Array.isArray(value) && depth < DEEPEST) {
      for (const inner in value) {
        collect(`${name}.${inner}`, (value as Record<string, unknown>)[inner], depth + 1);
      }
    }
  };

  /** The row of the next step. */
  const nextRow = (): number => {
    const isOpen = () => rows > 0 && index.counts[rows - 1] < stride;
    if (!isOpen() && rows === capacity) merge();
    return isOpen() ? rows - 1 : rows;
  };

  return {
    clear,
    fit,
    /**
     * Adds a step that is found at this place in its file; false where the value is no object with a whole number `step`
     * from 0 to a thousand million. A step that comes again replaces the rows from it on.
     */
    add: (value: unknown, place: number): boolean => {
      const object = value as Record<string, unknown> | null | undefined;
      const step = object?.step as number;
      if (!Number.isInteger(step) || step < 0 || step > LARGEST_STEP) return false;
      for (const column of columns.values()) column.latest = NaN;
      for (const name in object) if (name !== "step") collect(name, object[name], 1);
      if (rows > 0 && index.lasts[rows - 1] >= step) forgetFrom(step);
      const row = nextRow();
      const { steps, lasts, counts, places } = index;
      if (row === rows) [steps[row], counts[row], places[row]] = [step, 0, place];
      rows = row + 1;
      lasts[row] = step;
      counts[row]++;
      for (const { mean, low, high, latest } of columns.values()) {
        if (Number.isNaN(latest)) continue;
        mean[row] = meanOf(mean[row], counts[row] - 1, latest, 1);
        low[row] = smaller(low[row], latest);
        high[row] = larger(high[row], latest);
      }
      return true;
    },
    /** The numbers of the last step, by name. */
    latest: (): Readonly<Record<string, number>> =>
      Object.fromEntries(
        [...columns].flatMap(([name, { latest }]) => Number.isNaN(latest) ? [] : [[name, latest]]),
      ),
    /** Where in the file the first step is found. */
    begin: (): number | null => rows === 0 ? null : index.places[0],
    lastStep: (): number | null => rows === 0 ? null : index.lasts[rows - 1],
    /** Whether there were more columns than are kept. */
    leftOut: () => leftOut,
    /** How many numbers are held in memory. */
    numbers,
    /** Where in the file the first step of each row is found. */
    places: (): Float64Array => index.places.subarray(0, rows),
    /** The first rows, or all. */
    table: (most = rows): Table => {
      const count = Math.min(most, rows);
      const [steps, lasts, counts] = [index.steps, index.lasts, index.counts].map((all) =>
        all.subarray(0, count)
      );
      const named = (kind: "mean" | "low" | "high") =>
        new Map([...columns].map(([name, column]) => [name, column[kind]]));
      byName ??= { means: named("mean"), lows: named("low"), highs: named("high") };
      const { means, lows, highs } = byName;
      return {
        rows: count,
        steps,
        columns: means,
        ...stride === 1 ? {} : { merged: { lasts, counts, lows, highs } },
      };
    },
  };
};

/** How many of the ascending values are less than this. */
export const placeOf = (values: Float64Array, value: number): number => {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
};

const empty = (length: number) => new Float64Array(length).fill(NaN);

// Of two numbers of which either may be missing, which is NaN.
const smaller = (a: number, b: number) => a <= b || Number.isNaN(b) ? a : b;
const larger = (a: number, b: number) => a >= b || Number.isNaN(b) ? a : b;
const meanOf = (a: number, countA: number, b: number, countB: number) =>
  Number.isNaN(a) ? b : Number.isNaN(b) ? a : a + (b - a) * (countB / (countA + countB));
