/** Tensors that lie in a file, and the storages under them. */
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { FormatError } from "../../files/format_error.ts";
import { arrayOver, ARRAYS, type FileDtype, type StoredTensor } from "../file_tensor.ts";
import { type PickleValue, refuse } from "../pickle/values.ts";

/** Plain data and tensors. An `OrderedDict` and a `Namespace` are Maps as well. */
export type TorchValue = PickleValue<StoredTensor>;

/** An `argparse.Namespace`, to be told from a dict. */
export class Namespace extends Map<TorchValue, TorchValue> {}

export const isStoredTensor = (value: unknown): value is StoredTensor => value instanceof TensorInFile;

/** Elements that lie one after the other, in the file or in memory. */
export interface Storage {
  readonly dtype: FileDtype;
  readonly length: number;
  readonly swapped: boolean; // big-endian
  /** The bytes `begin` to `end`, a copy. */
  readonly read: (begin: number, end: number) => Effect.Effect<Uint8Array<ArrayBuffer>, FormatError>;
}

/** A tensor of a pickle. NumPy's begin empty, and get their contents as a state. */
export class TensorInFile implements StoredTensor {
  dtype!: FileDtype;
  shape!: readonly number[];
  values!: StoredTensor["values"];
  name = "";

  /** Lays the tensor over a storage; `strides` and `offset` count elements. */
  fill(storage: Storage, offset: unknown, sizes: unknown, steps: unknown): this {
    if (this.values !== undefined) refuse("it fills an array twice");
    // Copies: the pickle may still change its lists.
    const shape = naturals(sizes);
    const strides = naturals(steps);
    const [first] = naturals([offset]);
    if (shape.length !== strides.length) {
      refuse(`it has a tensor of ${shape.length} sizes and ${strides.length} strides`);
    }
    const { dtype, length } = storage;
    const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
    const count = shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);
    const span = count === 0 ? 0 : shape.reduce((last, size, d) => last + (size - 1) * strides[d], 0) + 1;
    const text = `a tensor ${dtype} [${shape.join(", ")}]`;
    if (first + span > length) {
      refuse(`it has ${text} that ends at element ${first + span} of a storage of ${length}`);
    }
    if (count > length && count * size > MOST_REPEATED) {
      refuse(`it has ${text} that repeats the ${length} elements of its storage beyond reason`);
    }
    const gathered = !isRowMajor(shape, strides);

    this.dtype = dtype;
    this.shape = shape;
    this.values = storage.read(first * size, (first + span) * size).pipe(
      Effect.map((bytes) => {
        if (storage.swapped) swapBytes(bytes, size);
        const values = arrayOver(gathered ? gather(bytes, size, shape, strides, count) : bytes, dtype);
        // Whoever reads a mask relies on 0 and 1.
        return dtype === "BOOL" ? (values as Uint8Array).map((value) => value === 0 ? 0 : 1) : values;
      }),
      Effect.mapError(({ subject, reason }) =>
        new FormatError({ subject, reason: `tensor ${JSON.stringify(this.name)}: ${reason}` })
      ),
    );
    return this;
  }
}

const MOST_DIMENSIONS = 64;
// A tensor may repeat elements (a stride of 0), and so be larger than all of its file: not by much.
const MOST_REPEATED = 1 << 26; // bytes

export const naturals = (list: unknown): number[] => {
  const isNatural = (value: unknown): value is number =>
    Number.isSafeInteger(value) && (value as number) >= 0;
  if (Array.isArray(list) && list.length <= MOST_DIMENSIONS && list.every(isNatural)) return [...list];
  return refuse(
    `it has a tensor whose sizes, strides or offset are not up to ${MOST_DIMENSIONS} whole numbers from 0 on`,
  );
};

const isRowMajor = (shape: readonly number[], strides: readonly number[]) => {
  let expected = 1;
  for (let d = shape.length - 1; d >= 0; d--) {
    if (shape[d] !== 1 && strides[d] !== expected) return shape.includes(0);
    expected *= shape[d];
  }
  return true;
};

export const rowMajor = (shape: readonly number[]) => {
  const strides = shape.map(() => 1);
  for (let d = shape.length - 2; d >= 0; d--) strides[d] = strides[d + 1] * shape[d + 1];
  return strides;
};

// As whole numbers: moved as floats, a NaN may lose its bits.
const BITS: Readonly<
  Record<number, typeof Uint8Array | typeof Uint16Array | typeof Uint32Array | typeof BigUint64Array>
> = {
  1: Uint8Array,
  2: Uint16Array,
  4: Uint32Array,
  8: BigUint64Array,
};

const gather = (
  bytes: Uint8Array<ArrayBuffer>,
  size: number,
  shape: readonly number[],
  strides: readonly number[],
  count: number,
): Uint8Array => {
  const Words = BITS[size];
  const from = new Words(bytes.buffer);
  const to = new Words(count);
  const index = shape.map(() => 0);
  for (let i = 0, place = 0; i < count; i++) {
    to[i] = from[place];
    for (let d = shape.length - 1; d >= 0; d--) {
      place += strides[d];
      if (++index[d] < shape[d]) break;
      place -= strides[d] * shape[d];
      index[d] = 0;
    }
  }
  return new Uint8Array(to.buffer);
};

export const swapBytes = (bytes: Uint8Array, size: number) => {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (size === 2) buffer.swap16();
  if (size === 4) buffer.swap32();
  if (size === 8) buffer.swap64();
};
