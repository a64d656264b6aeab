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
import { Buffer } from "node:buffer";
import type { ByteSource } from "./byte_source.ts";
import { FormatError } from "./format_error.ts";

/**
 * What a pickle holds. Whole numbers beyond 2^53 are bigints; tuples and lists are arrays. `Leaf` is what the caller's
 * functions make.
 */
export type PickleValue<Leaf = never> =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array<ArrayBuffer>
  | PickleValue<Leaf>[]
  | Map<PickleValue<Leaf>, PickleValue<Leaf>>
  | Set<PickleValue<Leaf>>
  | Leaf;

/** A `collections.OrderedDict`, to be told from a dict. */
export class OrderedDict<K, V> extends Map<K, V> {}

/** Bytes that were left in the file, since they are many. */
export class BytesInFile {
  constructor(readonly offset: number, readonly length: number) {}
}

/** What to do with the parts of a pickle that are not plain data. All of these refuse it by `refuse()`. */
export interface Unpickling<Leaf> {
  /** By "module.name": a function of the arguments, or a constant. Bytes among the arguments may be `BytesInFile`. */
  readonly globals: ReadonlyMap<string, unknown>;
  /** What the pickle stores elsewhere, by the name it uses there. */
  readonly persistent?: (id: unknown) => unknown;
  /** Sets the state of a value that a function of `globals` made. */
  readonly setState?: (value: unknown, state: unknown) => void;
  /** Whether a value that is not plain data may stay; `path` are the keys that lead to it. */
  readonly isLeaf?: (value: object, path: () => string) => value is Leaf & object;
}

// A reason to refuse a file, thrown where the file's name is not known.
class Refusal extends Error {}

// What a checkpoint of a hundred thousand tensors needs; it bounds the memory that hostile opcodes can take.
const MOST_OPCODES = 1 << 22;
// Python's own pickler gives up at about this depth. Whoever walks the value by recursion is safe below it.
const DEEPEST = 1000;
// A value that names itself twice, that value twice, and so on is small here and endless for whoever walks it.
const MOST_VALUES = 1 << 24;
const LONGEST_LINE = 1 << 12; // of names and numbers
const LONGEST_INTEGER = 1 << 10; // bytes
const LARGE_BYTES = 1 << 16; // byte strings from here on stay in the file
const WINDOW = 1 << 16;

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
  if (error instanceof Refusal) return new FormatError({ file, reason: error.message });
  throw error;
};

/** Refuses a file, from within the functions of an `Unpickling` too. */
export const refuse = (reason: string): never => {
  throw new Refusal(reason);
};

// Thrown by an opcode whose operand is not in the window; it has done nothing yet and runs again with a larger one.
class Missing {
  constructor(readonly end: number) {}
}

const code = (character: string) => character.charCodeAt(0);

/** The machine. It works on a window of the file, and all that an opcode reads it reads before it acts. */
class Machine {
  at: number;
  readonly result: unknown[] = [];
  #window = new Uint8Array(0);
  #view = new DataView(new ArrayBuffer(0));
  #windowStart = 0;
  #opcodes = 0;
  #given = 0;
  readonly #stack: unknown[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(
    readonly size: number,
    offset: number,
    readonly unpickling: Pick<Unpickling<unknown>, "globals" | "persistent" | "setState">,
  ) {
    this.at = offset;
  }

  lookAt(window: Uint8Array<ArrayBuffer>, start: number) {
    this.#window = window;
    this.#view = new DataView(window.buffer, window.byteOffset, window.length);
    this.#windowStart = start;
  }

  /** Works until the end of the pickle and returns 0, or the number of bytes from `at` on that it has to see. */
  run(): number {
    for (;;) {
      const start = this.at;
      try {
        const opcode = this.#byte();
        if (++this.#opcodes > MOST_OPCODES) refuse(`its pickle has more than ${MOST_OPCODES} opcodes`);
        if (opcode === code(".")) {
          this.result.push(this.#pop());
          return 0;
        }
        this.#execute(opcode, start);
      } catch (missing) {
        if (!(missing instanceof Missing)) throw missing;
        this.at = start;
        return missing.end - start;
      }
    }
  }

  #execute(opcode: number, start: number) {
    const stack = this.#stack;
    switch (opcode) {
      case 0x80: { // PROTO
        const protocol = this.#byte();
        if (protocol > 5) refuse(`its pickle is of protocol ${protocol}, readable are 0 to 5`);
        return;
      }
      case 0x95: // FRAME: how much to read ahead
        return void this.#fits(this.#length8());

      case code("("):
        return void this.#marks.push(stack.length);
      case code("0"): // POP, which takes a mark where one is on top
        return void (this.#marks.at(-1) === stack.length ? this.#marks.pop() : this.#pop());
      case code("1"):
        return void this.#popMark();
      case code("2"):
        return void stack.push(this.#top());

      case code("N"):
        return void stack.push(null);
      case 0x88:
        return void stack.push(true);
      case 0x89:
        return void stack.push(false);
      case code("J"):
        return void stack.push(this.#number(4, (view, at) => view.getInt32(at, true)));
      case code("K"):
        return void stack.push(this.#byte());
      case code("M"):
        return void stack.push(this.#length2());
      case code("G"): // big-endian, unlike all others
        return void stack.push(this.#number(8, (view, at) => view.getFloat64(at)));
      case 0x8a:
        return void stack.push(twosComplement(this.#bytes(this.#byte())));
      case 0x8b: {
        const length = this.#length4();
        if (length > LONGEST_INTEGER) refuse(`it has an integer of ${length} bytes`);
        return void stack.push(twosComplement(this.#bytes(length)));
      }
      case code("I"): {
        const line = this.#line();
        return void stack.push(line === "00" ? false : line === "01" ? true : decimal(line));
      }
      case code("L"):
        return void stack.push(decimal(this.#line().replace(/L$/, "")));
      case code("F"):
        return void stack.push(float(this.#line()));

      case code("X"):
        return void stack.push(this.#text(this.#length4()));
      case 0x8c:
        return void stack.push(this.#text(this.#byte()));
      case 0x8d:
        return void stack.push(this.#text(this.#length8()));
      case code("V"): {
        const escape = /\\u([0-9a-fA-F]{4})|\\U([0-9a-fA-F]{8})/g;
        const character = (_: string, short?: string, long?: string) => {
          const point = parseInt((short ?? long)!, 16);
          return point <= 0x10ffff ? String.fromCodePoint(point) : refuse(`it has the character ${point}`);
        };
        return void stack.push(this.#line(Infinity).replace(escape, character));
      }
      case code("U"): // Python 2's str, be it text or bytes
        return void stack.push(latin1(this.#bytes(this.#byte())));
      case code("T"): {
        const length = this.#length4();
        return void stack.push(length < LARGE_BYTES ? latin1(this.#bytes(length)) : this.#large(length));
      }
      case code("C"):
        return void stack.push(this.#bytes(this.#byte()));
      case code("B"):
        return void stack.push(this.#byteString(this.#length4()));
      case 0x8e:
      case 0x96: // BYTEARRAY8
        return void stack.push(this.#byteString(this.#length8()));

      case code("]"):
      case code(")"):
        return void stack.push([]);
      case code("}"):
        return void stack.push(new Map());
      case 0x8f:
        return void stack.push(new Set());
      case code("l"):
      case code("t"):
        return void stack.push(this.#popMark());
      case 0x85:
      case 0x86:
      case 0x87:
        return void stack.push(this.#popMany(opcode - 0x84));
      case code("d"):
        return void stack.push(setItems(new Map(), this.#popMark()));
      case 0x91:
        return void stack.push(new Set(this.#popMark()));
      case code("a"): {
        const item = this.#pop();
        return void this.#list().push(item);
      }
      case code("e"): {
        const items = this.#popMark();
        const list = this.#list();
        for (const item of items) list.push(item);
        return;
      }
      case code("s"): {
        const items = this.#popMany(2);
        return void setItems(this.#top(), items);
      }
      case code("u"): {
        const items = this.#popMark();
        return void setItems(this.#top(), items);
      }
      case 0x90: {
        const items = this.#popMark();
        const set = this.#top();
        if (!(set instanceof Set)) return refuse("its pickle adds elements to what is no set");
        for (const item of items) set.add(item);
        return;
      }

      case code("p"):
        return void this.#memo.set(index(this.#line()), this.#top());
      case code("q"):
        return void this.#memo.set(this.#byte(), this.#top());
      case code("r"):
        return void this.#memo.set(this.#length4(), this.#top());
      case 0x94:
        return void this.#memo.set(this.#memo.size, this.#top());
      case code("g"):
        return void stack.push(this.#remembered(index(this.#line())));
      case code("h"):
        return void stack.push(this.#remembered(this.#byte()));
      case code("j"):
        return void stack.push(this.#remembered(this.#length4()));

      case code("c"): {
        const module = this.#line();
        return void stack.push(this.#global(module, this.#line()));
      }
      case 0x93: {
        const [module, name] = this.#popMany(2);
        if (typeof module !== "string" || typeof name !== "string") {
          return refuse("its pickle asks for something whose name is no text");
        }
        return void stack.push(this.#global(module, name));
      }
      case code("R"):
      case 0x81: { // NEWOBJ differs only inside Python
        const [callee, given] = this.#popMany(2);
        return void stack.push(this.#call(callee, given));
      }
      case 0x92: {
        const [callee, given, named] = this.#popMany(3);
        if (!(named instanceof Map) || named.size > 0) refuse("its pickle makes a call with named arguments");
        return void stack.push(this.#call(callee, given));
      }
      case code("b"): {
        const state = this.#pop();
        const value = this.#top();
        if (this.unpickling.setState === undefined) return refuse("its pickle sets the state of an object");
        this.#charge(state);
        return this.unpickling.setState(value, state);
      }
      case code("P"):
        return void stack.push(this.#persistent(this.#line()));
      case code("Q"):
        return void stack.push(this.#persistent(this.#pop()));

      default:
        return refuse(
          `byte ${start} is 0x${
            opcode.toString(16).padStart(2, "0")
          }, which begins nothing that a checkpoint needs: ` +
            `this is no pickle, or it is damaged`,
        );
    }
  }

  #global(module: string, name: string): unknown {
    const found = this.unpickling.globals.get(`${module}.${name}`);
    if (found !== undefined) return found;
    return refuse(
      `it asks for ${
        shown(`${module}.${name}`).slice(1, -1)
      }, which no checkpoint needs: nothing of it was run`,
    );
  }

  #call(callee: unknown, given: unknown): unknown {
    if (typeof callee !== "function") return refuse("its pickle calls what is no function");
    if (!Array.isArray(given)) return refuse("its pickle makes a call without a list of arguments");
    this.#charge(given);
    return callee(given);
  }

  #persistent(id: unknown): unknown {
    this.#charge(id);
    return this.unpickling.persistent?.(id) ?? refuse("it refers to something outside of its pickle");
  }

  /**
   * Counts what a function is given, since it may copy it: a call takes two bytes of a pickle, and may be made with the
   * same long list again and again.
   */
  #charge(given: unknown) {
    const size = (value: unknown): number =>
      value instanceof Map || value instanceof Set
        ? value.size
        : Array.isArray(value) || typeof value === "string"
        ? value.length
        : 1;
    this.#given += size(given);
    if (this.#given <= this.size + MOST_OPCODES && Array.isArray(given)) {
      for (const part of given) this.#given += size(part);
    }
    if (this.#given > this.size + MOST_OPCODES) {
      refuse("its pickle makes calls with the same values over and over");
    }
  }

  // The stack: nothing is taken from below the last mark.

  #pop(): unknown {
    this.#top();
    return this.#stack.pop();
  }

  #top(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) refuse("its pickle takes from an empty stack");
    return this.#stack[this.#stack.length - 1];
  }

  #popMany(count: number): unknown[] {
    if (this.#stack.length - count < (this.#marks.at(-1) ?? 0)) {
      refuse("its pickle takes from an empty stack");
    }
    return this.#stack.splice(-count);
  }

  #popMark(): unknown[] {
    const mark = this.#marks.pop();
    return mark === undefined ? refuse("its pickle lacks a mark on the stack") : this.#stack.splice(mark);
  }

  #list(): unknown[] {
    const list = this.#top();
    return Array.isArray(list) ? list : refuse("its pickle appends to what is no list");
  }

  #remembered(index: number): unknown {
    return this.#memo.has(index)
      ? this.#memo.get(index)
      : refuse(`its pickle recalls value ${index}, which it never kept`);
  }

  // The bytes.

  /** The place in the window of the next `length` bytes, which are then taken. */
  #take(length: number): number {
    this.#fits(length);
    const place = this.at - this.#windowStart;
    if (place + length > this.#window.length) throw new Missing(this.at + length);
    this.at += length;
    return place;
  }

  #fits(length: number) {
    if (this.at + length > this.size) {
      refuse(
        `it ends at byte ${this.size} inside its pickle, which needs ${length} more at byte ${this.at}: it was cut short or is damaged`,
      );
    }
  }

  #number<A>(length: number, get: (view: DataView, at: number) => A): A {
    return get(this.#view, this.#take(length));
  }

  #byte(): number {
    return this.#window[this.#take(1)];
  }

  #length2(): number {
    return this.#number(2, (view, at) => view.getUint16(at, true));
  }

  #length4(): number {
    return this.#number(4, (view, at) => view.getUint32(at, true));
  }

  // Inexact beyond 2^53, where no file is long enough anyway.
  #length8(): number {
    return this.#number(8, (view, at) => Number(view.getBigUint64(at, true)));
  }

  #bytes(length: number): Uint8Array<ArrayBuffer> {
    const place = this.#take(length);
    return this.#window.slice(place, place + length);
  }

  #byteString(length: number): Uint8Array<ArrayBuffer> | BytesInFile {
    return length < LARGE_BYTES ? this.#bytes(length) : this.#large(length);
  }

  #large(length: number): BytesInFile {
    this.#fits(length);
    const bytes = new BytesInFile(this.at, length);
    this.at += length;
    return bytes;
  }

  #text(length: number): string {
    const place = this.#take(length);
    try {
      return utf8.decode(this.#window.subarray(place, place + length));
    } catch {
      return refuse(`its text of ${length} bytes before byte ${this.at} is not UTF-8 or too long`);
    }
  }

  #line(longest = LONGEST_LINE): string {
    const place = this.at - this.#windowStart;
    const end = this.#window.indexOf(0x0a, place);
    if (end >= 0 && end - place <= longest) {
      this.at += end + 1 - place;
      return latin1(this.#window.subarray(place, end));
    }
    const seen = this.#window.length - place;
    if (seen > longest) refuse(`its pickle has a line longer than ${longest} bytes`);
    this.#fits(seen + 1);
    throw new Missing(Math.min(this.at + Math.max(WINDOW + 1, seen * 2), this.size));
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

// TextDecoder's "latin1" is another code page.
const latin1 = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

const twosComplement = (bytes: Uint8Array): number | bigint => {
  if (bytes.length === 0) return 0;
  const digits = Buffer.from(bytes).reverse().toString("hex");
  return whole(BigInt.asIntN(bytes.length * 8, BigInt(`0x${digits}`)));
};

const decimal = (line: string): number | bigint =>
  /^\s*[+-]?\d+\s*$/.test(line) && line.length < LONGEST_INTEGER * 2
    ? whole(BigInt(line.replace("+", "")))
    : refuse(`it has the integer ${shown(line)}`);

/** A number where it is exact. */
export const whole = (value: bigint): number | bigint =>
  Number.isSafeInteger(Number(value)) ? Number(value) : value;

const float = (line: string): number => {
  if (line === "nan") return NaN;
  if (/^-?inf$/.test(line)) return line === "inf" ? Infinity : -Infinity;
  return /^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(line) && !Number.isNaN(Number(line))
    ? Number(line)
    : refuse(`it has the number ${shown(line)}`);
};

const index = (line: string): number =>
  /^\d{1,15}$/.test(line) ? Number(line) : refuse(`its pickle keeps a value as ${shown(line)}`);

/** A value for an error. Texts of a hostile file may be long, and hold what a terminal acts on. */
export const shown = (value: unknown): string =>
  typeof value === "string"
    ? JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value)
    : isObject(value)
    ? "an object"
    : String(value);

const setItems = (dict: unknown, items: readonly unknown[]) => {
  if (!(dict instanceof Map)) return refuse("its pickle sets an item of what is no dict");
  if (items.length % 2 !== 0) return refuse("its pickle has a dict with a key without a value");
  for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  return dict;
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

const isObject = (value: unknown): value is object =>
  typeof value === "object" && value !== null || typeof value === "function";

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
