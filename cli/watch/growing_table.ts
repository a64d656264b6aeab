/** Reads a file of JSON objects, one a line, as columns of numbers while it grows: the metrics of a run. */

/** Columns by name, with NaN where a line lacks the number. Fields of nested objects are named "outer.inner". */
export interface Table {
  readonly rows: number;
  /** The step of each row, from 0; ascending. */
  readonly steps: Float64Array;
  readonly columns: ReadonlyMap<string, Float64Array>;
}

const CHUNK = 2 ** 22;
const NEWLINE = 10;

/**
 * The table of `file`. `poll` reads what was added since the last call, or the whole file where another one has replaced it,
 * as when a run is resumed. An incomplete last line is read once it is complete. Lines that are no objects with a number
 * `step` are skipped. A step that comes again replaces all rows from that step on.
 */
export const growingTable = (file: string) => {
  let identity: number | null = null;
  let offset = 0; // of the first byte that has not been read
  let rows = 0;
  let capacity = 0;
  let steps = new Float64Array(0);
  let columns = new Map<string, Float64Array>();
  let versions = 0;

  const clear = () => {
    [offset, rows, capacity] = [0, 0, 0];
    steps = new Float64Array(0);
    columns = new Map();
  };

  const grown = (column: Float64Array) => {
    const larger = new Float64Array(capacity).fill(NaN);
    larger.set(column.subarray(0, rows));
    return larger;
  };

  const set = (name: string, value: unknown) => {
    if (typeof value === "number") {
      let column = columns.get(name);
      if (column === undefined) columns.set(name, column = new Float64Array(capacity).fill(NaN));
      column[rows] = value;
    } else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const inner in value) set(`${name}.${inner}`, (value as Record<string, unknown>)[inner]);
    }
  };

  const add = (line: string) => {
    let object: Record<string, unknown> | null;
    try {
      object = JSON.parse(line);
    } catch {
      return;
    }
    const step = object?.step;
    if (object === null || typeof step !== "number" || !Number.isFinite(step)) return;
    if (rows > 0 && steps[rows - 1] >= step) {
      const kept = placeOf(steps.subarray(0, rows), step);
      for (const column of columns.values()) column.fill(NaN, kept);
      rows = kept;
    }
    if (rows === capacity) {
      capacity = Math.max(1024, 2 * capacity);
      steps = grown(steps);
      for (const [name, column] of columns) columns.set(name, grown(column));
    }
    for (const name in object) if (name !== "step") set(name, object[name]);
    steps[rows++] = step;
  };

  /** Reads what is new; false if there is nothing. A file that does not exist counts as empty. */
  const read = async (): Promise<boolean> => {
    let opened: Deno.FsFile;
    try {
      opened = await Deno.open(file);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      const had = rows > 0;
      if (had) clear();
      return had;
    }
    using source = opened;
    const { size, ino } = await source.stat();
    const before = `${identity} ${offset}`;
    if (ino !== identity || size < offset) clear();
    identity = ino;
    while (offset < size) {
      await source.seek(offset, Deno.SeekMode.Start);
      let bytes = new Uint8Array(Math.min(CHUNK, size - offset));
      bytes = bytes.subarray(0, await source.read(bytes) ?? 0);
      const end = bytes.lastIndexOf(NEWLINE) + 1;
      if (end === 0 && bytes.length < CHUNK) break;
      for (const line of new TextDecoder().decode(bytes.subarray(0, end)).split("\n")) {
        if (line !== "") add(line);
      }
      offset += end === 0 ? bytes.length : end; // no run writes a line of megabytes: skip it
    }
    return `${identity} ${offset}` !== before;
  };

  let reading: Promise<boolean> = Promise.resolve(false);
  return {
    /** A number that grows with each change of the table. */
    version: () => versions,
    poll: (): Promise<void> => {
      reading = reading.catch(() => false).then(read);
      return reading.then((changed) => void (versions += Number(changed)));
    },
    table: (): Table => ({ rows, steps: steps.subarray(0, rows), columns }),
  };
};

export type GrowingTable = ReturnType<typeof growingTable>;

/** The number of the ascending values that are less than `value`. */
export const placeOf = (values: Float64Array, value: number): number => {
  let [low, high] = [0, values.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
};
