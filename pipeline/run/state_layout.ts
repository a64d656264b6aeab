/** How state lies in checkpoints (PyTorch's layout) and on the device. */
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";

/** Values under their checkpoint names, in PyTorch's shapes. */
export interface StateTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}
export type StateValues = ReadonlyMap<string, StateTensor>;

/** A tensor of the state as files hold it: counters are 64-bit integers there, as PyTorch has them. */
export const fileTensor = (name: string, { shape, data }: StateTensor): FileTensor =>
  name.endsWith("num_batches_tracked")
    ? { dtype: "I64", shape, data: BigInt64Array.from(data, (count) => BigInt(Math.trunc(count))) }
    : { dtype: "F32", shape, data: data as Float32Array<ArrayBuffer> };

/** Names and shapes that a checkpoint of this state has. */
export const checkpointShapes = (state: StateBuilder): ReadonlyMap<string, readonly number[]> =>
  new Map([...initialShapes(state)]);

function* initialShapes(state: StateBuilder): Iterable<[string, readonly number[]]> {
  for (const { name, shape, storage } of state.declared.values()) {
    if (storage !== "running") yield [name, shape];
    else {
      const at = name.slice(0, -"running".length);
      yield [`${at}running_mean`, shape];
      yield [`${at}running_var`, shape];
      yield [`${at}num_batches_tracked`, []];
    }
  }
}

/** From PyTorch's layout to the device's. */
export const toDevice = ({ name, shape, storage }: Declared, values: StateValues): Float32Array => {
  if (storage === "running") {
    const at = name.slice(0, -"running".length);
    const [C] = shape;
    const data = new Float32Array(3 * C).fill(values.get(`${at}num_batches_tracked`)!.data[0], 2 * C);
    data.set(values.get(`${at}running_mean`)!.data, 0);
    data.set(values.get(`${at}running_var`)!.data, C);
    return data;
  }
  return storage === "same" ? values.get(name)!.data : turned(values.get(name)!.data, shape, "toDevice");
};

/** Moves the first axis of [O, I, KH, KW] or [O, I] behind all others, and I behind the spatial ones; or back. */
export const turned = (
  data: Float32Array,
  shape: readonly number[],
  direction: "toDevice" | "toFile",
): Float32Array => {
  const [O, I] = shape;
  const spatial = sizeOf(shape) / O / I;
  const result = new Float32Array(data.length);
  const rows = I * spatial; // [O, rows] in files; on the device O comes last
  // Square by square, since one side or the other is read against its grain: a square stays in the cache.
  for (let o0 = 0; o0 < O; o0 += SQUARE) {
    const o1 = Math.min(o0 + SQUARE, O);
    for (let row0 = 0; row0 < rows; row0 += SQUARE) {
      const row1 = Math.min(row0 + SQUARE, rows);
      for (let row = row0; row < row1; row++) {
        const device = (row % spatial * I + Math.floor(row / spatial)) * O;
        if (direction === "toDevice") {
          for (let o = o0; o < o1; o++) result[device + o] = data[o * rows + row];
        } else for (let o = o0; o < o1; o++) result[o * rows + row] = data[device + o];
      }
    }
  }
  return result;
};

const SQUARE = 32;

/** A declared tensor's device data under its checkpoint names, in PyTorch's layout. */
export const toFile = ({ name, shape, storage }: Declared, data: Float32Array): [string, StateTensor][] => {
  if (storage === "running") {
    const at = name.slice(0, -"running".length);
    const [C] = shape;
    return [
      [`${at}running_mean`, { shape, data: data.slice(0, C) }],
      [`${at}running_var`, { shape, data: data.slice(C, 2 * C) }],
      [`${at}num_batches_tracked`, { shape: [], data: data.slice(2 * C, 2 * C + 1) }],
    ];
  }
  return [[name, { shape, data: storage === "same" ? data : turned(data, shape, "toFile") }]];
};
