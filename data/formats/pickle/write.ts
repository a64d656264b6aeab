/**
 * Python values as pickles. The same value gives the same bytes: nothing is remembered between parts, no clock is read.
 *
 * Source: Python's `pickletools`; `__reduce__` of NumPy's arrays and types.
 */
import { ARRAYS, type FileDtype, type FileTensor } from "../file_tensor.ts";
import { OrderedDict } from "./values.ts";

/**
 * What can be written. A Map is a dict and an `OrderedDict` an OrderedDict, an array a list; a number is an int where it
 * is whole, which a `Float` prevents.
 */
export type PickleInput =
  | null
  | boolean
  | number
  | bigint
  | string
  | Float
  | FileTensor
  | readonly PickleInput[]
  | ReadonlyMap<PickleInput, PickleInput>;

/** A number that is a Python float even where it is whole: `new Float(65536)` is 65536.0. */
export class Float {
  constructor(readonly value: number) {}
}

/**
 * A pickle of protocol 4, with tensors as NumPy arrays, in pieces to be written one after the other: the tensors' values
 * are views, not copies.
 *
 * Throws a `RangeError` for a tensor whose values do not fit its shape or whose type NumPy lacks (BF16), and for values
 * nested deeper than 900.
 */
export const writePickle = (value: PickleInput): readonly Uint8Array<ArrayBuffer>[] => {
  const out = new PickleWriter(4, (tensor) => writeArray(out, tensor));
  return out.finish(value);
};

const NUMPY_TYPES: Readonly<Partial<Record<FileDtype, string>>> = {
  ...{
    F64: "f8",
    F32: "f4",
    F16: "f2",
    I64: "i8",
    I32: "i4",
    U32: "u4",
    I16: "i2",
    I8: "i1",
    U8: "u1",
    BOOL: "b1",
  },
};

const writeArray = (out: PickleWriter, tensor: FileTensor) => {
  const type = NUMPY_TYPES[tensor.dtype];
  if (type === undefined) {
    throw new RangeError(`Cannot write a tensor ${tensor.dtype}: NumPy has no such type`);
  }
  const data = tensorBytes(tensor);

  // _reconstruct(ndarray, (0,), b"b") makes an empty array; its state is (version, shape, dtype, column-major, bytes).
  out.global("numpy.core.multiarray", "_reconstruct");
  out.global("numpy", "ndarray");
  out.tuple([0]);
  out.bytes(new Uint8Array([0x62]));
  out.opcode(TUPLE3, REDUCE, MARK);
  out.value(1);
  out.tuple(tensor.shape);
  out.global("numpy", "dtype");
  out.value(type);
  out.value(false);
  out.value(true);
  out.opcode(TUPLE3, REDUCE, MARK);
  out.value(3);
  out.value(data.BYTES_PER_ELEMENT === 1 ? "|" : "<");
  for (const part of [null, null, null, -1, -1, 0]) out.value(part);
  out.opcode(TUPLE, BUILD);
  out.value(false);
  out.bytes(new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength));
  out.opcode(TUPLE, BUILD);
};

/** The values of a tensor that is about to be written. Throws a `RangeError` where they do not fit its shape or type. */
export const tensorBytes = ({ dtype, shape, data }: FileTensor): FileTensor["data"] => {
  const count = shape.reduce((product, length) => product * length, 1);
  if (count === data.length && data instanceof ARRAYS[dtype]) return data;
  throw new RangeError(
    `Cannot write a tensor ${dtype} [${
      shape.join(", ")
    }]: it holds ${data.length} values in a ${data.constructor.name}`,
  );
};

const code = (character: string) => character.charCodeAt(0);
export const MARK = code("("), TUPLE = code("t"), TUPLE3 = 0x87, REDUCE = code("R"), BUILD = code("b");
export const EMPTY_TUPLE = code(")"), BINPERSID = code("Q");

// Python's own pickler gives up at about 1000; the tensors need a few levels themselves.
const DEEPEST = 900;

/** Opcodes, one after the other. */
export class PickleWriter {
  readonly #pieces: Uint8Array<ArrayBuffer>[] = [];
  #buffer = new Uint8Array(1 << 16);
  #view = new DataView(this.#buffer.buffer);
  #length = 0;
  #depth = 0;

  constructor(protocol: number, readonly tensor: (tensor: FileTensor) => void) {
    this.opcode(0x80, protocol);
  }

  /** The pieces of a pickle that consists of this value. */
  finish(value: PickleInput): readonly Uint8Array<ArrayBuffer>[] {
    this.value(value);
    this.opcode(code("."));
    this.#flush();
    return this.#pieces;
  }

  value(value: PickleInput) {
    if (value === null) this.opcode(code("N"));
    else if (typeof value === "boolean") this.opcode(value ? 0x88 : 0x89);
    else if (typeof value === "string") this.#text(value);
    else if (typeof value === "bigint") this.#integer(value);
    else if (typeof value === "number") {
      if (Number.isSafeInteger(value) && !Object.is(value, -0)) this.#integer(value);
      else this.#float(value);
    } else if (value instanceof Float) this.#float(value.value);
    else this.#nested(value);
  }

  #nested(value: FileTensor | readonly PickleInput[] | ReadonlyMap<PickleInput, PickleInput>) {
    if (++this.#depth > DEEPEST) {
      throw new RangeError(`Cannot write a value that is nested deeper than ${DEEPEST}`);
    }
    if (Array.isArray(value)) {
      this.opcode(code("]"), MARK);
      for (const item of value) this.value(item);
      this.opcode(code("e"));
    } else if (value instanceof Map) {
      if (value instanceof OrderedDict) {
        this.global("collections", "OrderedDict");
        this.opcode(EMPTY_TUPLE, REDUCE);
      } else this.opcode(code("}"));
      this.opcode(MARK);
      for (const [key, item] of value) {
        this.value(key);
        this.value(item);
      }
      this.opcode(code("u"));
    } else this.tensor(value as FileTensor);
    this.#depth--;
  }

  opcode(...bytes: readonly number[]) {
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  global(module: string, name: string) {
    this.opcode(code("c"), ...new TextEncoder().encode(`${module}\n${name}\n`));
  }

  tuple(values: readonly PickleInput[]) {
    this.opcode(MARK);
    for (const value of values) this.value(value);
    this.opcode(TUPLE);
  }

  /** Protocol 3 and up; many bytes become a piece of their own. */
  bytes(bytes: Uint8Array<ArrayBuffer>) {
    if (bytes.length < 256) this.opcode(code("C"), bytes.length, ...bytes);
    else {
      this.opcode(0x8e);
      this.#number(8, (at) => this.#view.setBigUint64(at, BigInt(bytes.length), true));
      this.#flush();
      this.#pieces.push(bytes);
    }
  }

  #text(value: string) {
    const bytes = new TextEncoder().encode(value);
    this.opcode(code("X"));
    this.#number(4, (at) => this.#view.setUint32(at, bytes.length, true));
    this.#reserve(bytes.length);
    this.#buffer.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #float(value: number) {
    this.opcode(code("G"));
    this.#number(8, (at) => this.#view.setFloat64(at, value));
  }

  #integer(value: number | bigint) {
    if (value >= 0 && value < 0x100) this.opcode(code("K"), Number(value));
    else if (value >= -0x80000000 && value < 0x80000000) {
      this.opcode(code("J"));
      this.#number(4, (at) => this.#view.setInt32(at, Number(value), true));
    } else {
      const bytes: number[] = []; // two's complement
      let rest = BigInt(value);
      do {
        bytes.push(Number(rest & 0xffn));
        rest >>= 8n;
      } while (rest !== (bytes.at(-1)! < 0x80 ? 0n : -1n));
      if (bytes.length > 0xff) throw new RangeError("Cannot write an integer of more than 255 bytes");
      this.opcode(0x8a, bytes.length, ...bytes);
    }
  }

  #number(length: number, set: (at: number) => void) {
    this.#reserve(length);
    set(this.#length);
    this.#length += length;
  }

  #reserve(length: number) {
    if (this.#length + length <= this.#buffer.length) return;
    const larger = new Uint8Array(Math.max(this.#length + length, this.#buffer.length * 2));
    larger.set(this.#buffer.subarray(0, this.#length));
    this.#buffer = larger;
    this.#view = new DataView(larger.buffer);
  }

  #flush() {
    if (this.#length > 0) this.#pieces.push(this.#buffer.slice(0, this.#length));
    this.#length = 0;
  }
}
