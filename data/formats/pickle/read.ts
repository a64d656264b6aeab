/**
 * Pickles: the values that Python writes, read without executing anything.
 *
 * A pickle is a program for a small machine with a stack and a memory. It builds lists, dicts, texts and numbers by
 * itself; for all else it names something to be called ("globals"). Here a name stands for a function of the caller's,
 * and a name without one is refused before anything is done with it.
 *
 * Source: Python's own description of the machine, `pickletools`, protocols 0 to 5.
 */
import { Effect } from "effect";
import type { ByteSource } from "../../files/byte_source.ts";
import { FormatError, isObject, shown } from "../../files/format_error.ts";
import { Machine, WINDOW } from "./machine.ts";
import { BytesInFile, type PickleValue, Refusal, refuse, type Unpickling } from "./values.ts";
// Python's own pickler gives up at about this depth. Whoever walks the value by recursion is safe below it.
const DEEPEST = 1000;
// A value that names itself twice, that value twice, and so on is small here and endless for whoever walks it.
const MOST_VALUES = 1 << 24;

/**
 * The value of the pickle that starts at `offset`, and the offset behind it.
 *
 * Fails with a `FormatError` that names the offending global, or says what is damaged: also for values that contain
 * themselves, that are nested deeper than 1000 or unfold to more than 2^24 values. Time and memory are bounded by the
 * size of the pickle.
 */
export const readPickle = Effect.fn("readPickle")(function* <Leaf = never>(
  source: ByteSource,
  offset: number,
  unpickling: Unpickling<Leaf>,
): Effect.fn.Return<{ readonly value: PickleValue<Leaf>; readonly end: number }, FormatError> {
  const attempt = <A>(work: () => A) => Effect.try({ try: work, catch: formatError(source.name) });
  const machine = new Machine(source.size, offset, unpickling);
  for (let needed = WINDOW; needed > 0;) {
    const from = machine.at;
    const length = Math.min(Math.max(needed, WINDOW), source.size - from);
    machine.lookAt(yield* source.read(from, length), from);
    needed = yield* attempt(() => machine.run());
  }
  const large = yield* attempt(() => settle(machine.result, unpickling));
  for (const [{ offset, length }, places] of large) {
    const bytes = yield* source.read(offset, length);
    for (const put of places) put(bytes);
  }
  return { value: machine.result[0] as PickleValue<Leaf>, end: machine.at };
});

/** Turns what was thrown into an error of this file. What is not a `Refusal` is a fault of this program: thrown on. */
const formatError = (file: string) => (error: unknown): FormatError => {
  if (error instanceof Refusal) return new FormatError({ subject: file, reason: error.message });
  throw error;
};

/** Byte strings that are still in the file, and where they belong: each is read once, however often it occurs. */
type LargeBytes = Map<BytesInFile, ((bytes: Uint8Array<ArrayBuffer>) => void)[]>;

/** An object whose parts are being looked at. */
interface Visit {
  readonly owner: unknown[] | Map<unknown, unknown> | Set<unknown>;
  readonly keys: readonly unknown[]; // of a dict; they come before its values
  readonly parts: readonly unknown[];
  next: number;
  depth: number; // of the parts so far
  count: number; // and how many they unfold to
}

/**
 * Checks that `root[0]` is a finite tree of plain data and leaves, and finds the large byte strings in it.
 *
 * Each object is looked at once, however often it occurs, and without recursion: hostile values are deep.
 */
const settle = <Leaf>(root: unknown[], { globals, isLeaf }: Unpickling<Leaf>): LargeBytes => {
  const large: LargeBytes = new Map();
  const known = new Map<object, { depth: number; count: number } | "open">();
  const visit = (owner: Visit["owner"]): Visit => {
    known.set(owner, "open");
    const keys = owner instanceof Map ? [...owner.keys()] : [];
    const parts = owner instanceof Map ? [...keys, ...owner.values()] : [...owner];
    return { owner, keys, parts, next: 0, depth: 0, count: 0 };
  };

  const path = [visit(root)];
  const name = () => path.slice(1).slice(-LONGEST_PATH).map(partName).join(".");
  while (path.length > 0) {
    const here = path[path.length - 1];
    if (here.next === here.parts.length) {
      path.pop();
      const done = { depth: here.depth + 1, count: here.count + 1 };
      known.set(here.owner, done);
      if (path.length > 0) add(path[path.length - 1], done);
      continue;
    }
    const place = here.next++;
    const part = here.parts[place];
    const seen = isObject(part) ? known.get(part) : SINGLE;
    if (seen === "open") return refuse("its value contains itself");
    if (seen !== undefined) {
      add(here, seen);
      continue;
    }
    if (Array.isArray(part) || part instanceof Map || part instanceof Set) {
      if (path.length > DEEPEST) refuse(`its value is nested deeper than ${DEEPEST}`);
      path.push(visit(part));
      continue;
    }
    if (part instanceof BytesInFile) {
      const { owner, keys } = here;
      if (owner instanceof Set || place < keys.length) return refuse(`it has ${part.length} bytes as a key`);
      const put = (bytes: Uint8Array<ArrayBuffer>) =>
        owner instanceof Map ? owner.set(keys[place - keys.length], bytes) : owner[place] = bytes;
      const places = large.get(part) ?? [];
      places.push(put);
      large.set(part, places);
    } else if (!(part instanceof Uint8Array || isLeaf?.(part as object, name))) {
      const global = [...globals].find(([, known]) => known === part)?.[0] ?? "an unfinished object";
      refuse(`it keeps ${global} itself as ${shown(name())}, which is no value`);
    } else known.set(part as object, SINGLE);
    add(here, SINGLE);
  }
  return large;
};

const SINGLE = { depth: 0, count: 1 };
const LONGEST_PATH = 16;

const add = (visit: Visit, { depth, count }: { depth: number; count: number }) => {
  visit.depth = Math.max(visit.depth, depth);
  visit.count += count;
  if (visit.depth > DEEPEST) refuse(`its value is nested deeper than ${DEEPEST}`);
  if (visit.count > MOST_VALUES) refuse(`its value unfolds to more than ${MOST_VALUES} values`);
};

// Keys may be anything, a list of lists included: only short ones make a name.
const partName = ({ keys, next }: Visit): string => {
  const place = next - 1;
  if (keys.length === 0) return String(place);
  const key = keys[place - keys.length];
  return place < keys.length ? "(a key)" : isObject(key) ? "(an object)" : String(key).slice(0, 200);
};
