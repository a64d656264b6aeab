/** The stack machine that a pickle is a program for. */
import { Buffer } from "node:buffer";
import { shown } from "../../files/format_error.ts";
import { BytesInFile, refuse, type Unpickling, whole } from "./values.ts";

// What a checkpoint of a hundred thousand tensors needs; it bounds the memory that hostile opcodes can take.
const MOST_OPCODES = 1 << 22;
const LONGEST_LINE = 1 << 12; // of names and numbers
const LONGEST_INTEGER = 1 << 10; // bytes
const LONGEST_TEXT = 1 << 26; // bytes
const LARGE_BYTES = 1 << 16; // byte strings from here on stay in the file
export const WINDOW = 1 << 16;

// Thrown by an opcode whose operand is not in the window; it has done nothing yet and runs again with a larger one.
class Missing {
  constructor(readonly end: number) {}
}

const code = (character: string) => character.charCodeAt(0);

/** The machine. It works on a window of the file, and all that an opcode reads it reads before it acts. */
export class Machine {
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
        return void stack.push(this.#line(LONGEST_TEXT).replace(escape, character));
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
    if (length > LONGEST_TEXT) {
      this.#fits(length);
      refuse(`it has a text of ${length} bytes, at most ${LONGEST_TEXT} are read`);
    }
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

const float = (line: string): number => {
  if (line === "nan") return NaN;
  if (/^-?inf$/.test(line)) return line === "inf" ? Infinity : -Infinity;
  return /^[+-]?[\d.]+(e[+-]?\d+)?$/i.test(line) && !Number.isNaN(Number(line))
    ? Number(line)
    : refuse(`it has the number ${shown(line)}`);
};

const index = (line: string): number =>
  /^\d{1,15}$/.test(line) ? Number(line) : refuse(`its pickle keeps a value as ${shown(line)}`);

const setItems = (dict: unknown, items: readonly unknown[]) => {
  if (!(dict instanceof Map)) return refuse("its pickle sets an item of what is no dict");
  if (items.length % 2 !== 0) return refuse("its pickle has a dict with a key without a value");
  for (let i = 0; i < items.length; i += 2) dict.set(items[i], items[i + 1]);
  return dict;
};
