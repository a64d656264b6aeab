/** A file of JSON objects, one a line, as columns of numbers that grow with it: a run's metrics while it writes them. */
import { createHash } from "node:crypto";
import { basename, dirname } from "node:path";
import { MOST_ROWS, overview, placeOf, type Table } from "./overview.ts";
import { inTurn, readBytes, withFileInside, within } from "./run_file.ts";

const CHUNK = 2 ** 20; // bytes that are read at a time
const LONGEST_LINE = 2 ** 16; // characters, and bytes of one that is not finished
const LONGEST_FILE = 2 ** 34; // bytes
const MOST_DETAILS = 2 ** 23; // bytes of a file that are read again for a stretch of it
const PATIENCE = 1500; // milliseconds
const MOST_NUMBERS = 2 ** 19; // 4 MiB: 4096 rows of 40 columns
const NEWLINE = 10;

/**
 * The table of the file at `path`. `poll` reads what was added since the last call, and the whole file again where another one has
 * taken its place, as when a run is resumed. A last line that is not finished waits for its end, lines that are no
 * objects with a whole number `step` are left out, and a step that comes again replaces the rows from it on. However
 * long the file and its lines, at most `mostNumbers` numbers are kept in memory.
 */
export const growingTable = (path: string, mostNumbers: () => number = () => MOST_NUMBERS) => {
  const [folder, name] = [dirname(path), basename(path)];
  const rows = overview(mostNumbers);
  let file = nothingRead();

  const clear = (problem: string | null = null) => {
    rows.clear();
    file = { ...nothingRead(), problem };
  };

  const leaveOut = (line: number) => {
    file.firstLeftOut ??= line;
    file.leftOut++;
  };

  const addLine = (line: string, place: number) => {
    file.lines++;
    if (file.isCut) file.isCut = false;
    else if (rows.add(parsed(line), place)) {
      if (rows.begin() === place) file.start = createHash("sha256").update(line).digest("hex").slice(0, 16);
    } else if (/\S/.test(line)) leaveOut(file.lines);
  };

  const addBytes = (bytes: Uint8Array) => {
    const { offset } = file;
    if (!file.isCut || bytes.includes(NEWLINE)) {
      file.offset += eachLine(bytes, (line, at) => addLine(line, offset + at));
    }
    const rest = offset + bytes.length - file.offset; // of a line that has no end yet
    if (!file.isCut && rest <= LONGEST_LINE) return;
    if (!file.isCut) leaveOut(file.lines + 1);
    file.isCut = true;
    file.offset += rest;
  };

  /** Reads a chunk on; whether there is more. */
  const read = async (): Promise<boolean> => {
    const more = await withFileInside(folder, name, async (opened) => {
      const { identity, size, modified } = opened;
      if (identity !== file.identity || size < file.offset || file.problem !== null) clear();
      if (size > LONGEST_FILE) {
        clear(`${name} has ${gigabytes(size)} GB, expected less than ${gigabytes(LONGEST_FILE)}`);
        return false;
      }
      Object.assign(file, { identity, size, modified });
      rows.fit();
      const { offset } = file;
      if (offset === size) return false;
      const bytes = await readBytes(opened, offset, Math.min(CHUNK, size - offset));
      addBytes(bytes);
      bytes.buffer.transfer(0); // much memory would be taken until it is collected
      return file.offset > offset && file.offset < size;
    });
    if (more === null) clear();
    return more ?? false;
  };

  const readAll = async () => {
    try {
      while (await inTurn(read));
    } catch (error) {
      clear((error as Error).message);
    }
  };

  let reading: Promise<void> | null = null;
  let began = 0; // when that began
  let next: Promise<void> | null = null; // what is read once that is done
  const poll = (): Promise<void> => {
    if (reading === null) {
      began = performance.now();
      return reading = readAll().finally(() => reading = null);
    }
    return next ??= reading.then(() => {
      next = null;
      return poll();
    });
  };

  return {
    /** Reads what was added, to the end. */
    poll,
    /** Reads what was added, or some of it where that takes long; the rest is then read without anybody who waits. */
    pollBriefly: async (): Promise<void> => {
      if (reading === null || performance.now() - began < PATIENCE) await within(PATIENCE, poll(), undefined);
    },
    /** What has been read so far: other words after each change. */
    version: (): string => `${file.identity} ${file.offset}`,
    table: (): Table => rows.table(),
    latest: () => rows.latest(),
    lastStep: () => rows.lastStep(),
    /** How many numbers are kept in memory. */
    numbers: () => rows.numbers(),
    /** Tells the run from others that had the same folder: its first line, hashed; null before it. */
    start: () => file.start,
    /** When the file was last written, in milliseconds since 1970; null where there is none. */
    modified: () => file.modified,
    /** What of the file is not shown, and why; null where all is. */
    problem: (): string | null => {
      if (file.problem !== null) return file.problem;
      if (reading !== null && file.size - file.offset > CHUNK) {
        return `${name} is still being read: ${Math.floor(100 * file.offset / file.size)} %`;
      }
      if (file.leftOut > 0) {
        return `${name}, line ${file.firstLeftOut}: expected an object with a whole number "step" in at most ` +
          `${LONGEST_LINE / 1024} KiB (lines left out: ${file.leftOut})`;
      }
      return rows.leftOut()
        ? `${name} has too many names of numbers or too long ones: some are left out`
        : null;
    },
    /**
     * The table around these steps: as it is, or where it has fewer rows of them than are wanted, read again from the file
     * if the stretch is short. `before` are the rows before those of `table`.
     */
    around: async (
      from: number,
      to: number,
      wanted: number,
    ): Promise<{ readonly table: Table; readonly before?: Table }> => {
      const table = rows.table();
      if (table.merged === undefined) return { table };
      const places = rows.places();
      const first = Math.max(0, placeOf(table.merged.lasts, from) - 1);
      const end = Math.min(table.rows, placeOf(table.steps, to) + 2);
      const [begin, length] = [places[first], (end < table.rows ? places[end] : file.offset) - places[first]];
      if (end - first >= wanted || !(length > 0 && length <= MOST_DETAILS)) return { table };
      const { identity } = file;
      const bytes = await inTurn(() =>
        withFileInside(
          folder,
          name,
          (opened) => opened.identity === identity ? readBytes(opened, begin, length) : Promise.resolve(null),
        )
      ).catch(() => null);
      if (bytes === null || identity !== file.identity) return { table: rows.table() };
      const lines = bytes.reduce((count, byte) => byte === NEWLINE ? count + 1 : count, 0);
      const details = overview(() => MOST_NUMBERS, Math.min(MOST_ROWS, Math.max(lines, 1)));
      eachLine(bytes, (line) => details.add(parsed(line), 0));
      const found = details.table();
      const { merged } = rows.table(); // which may have changed meanwhile
      if (found.rows === 0 || merged === undefined) return { table: rows.table() };
      return { table: found, before: rows.table(placeOf(merged.lasts, found.steps[0])) };
    },
  };
};

const nothingRead = () => ({
  identity: null as string | null,
  offset: 0, // of the first byte that is not in the table
  size: 0,
  modified: null as number | null,
  isCut: false, // whether the bytes at the offset are the rest of a line that is too long
  lines: 0,
  leftOut: 0,
  firstLeftOut: null as number | null,
  start: null as string | null,
  problem: null as string | null,
});

export type GrowingTable = ReturnType<typeof growingTable>;

/** Calls `use` with each whole line and where it begins; how many bytes they have together. */
const eachLine = (bytes: Uint8Array, use: (line: string, at: number) => void): number => {
  const text = decoder.decode(bytes);
  const isAscii = text.length === bytes.length; // then a letter is a byte
  let at = 0;
  for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
    use(isAscii ? text.slice(at, end) : decoder.decode(bytes.subarray(at, end)), at);
    at = end + 1;
  }
  return at;
};

const decoder = new TextDecoder();

const parsed = (line: string): unknown => {
  if (line.length > LONGEST_LINE) return undefined;
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
};

const gigabytes = (bytes: number) => (bytes / 1e9).toFixed(1);
