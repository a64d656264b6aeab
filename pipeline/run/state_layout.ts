/** The layout of state in checkpoints (PyTorch's) and on the device. */
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";

/** The values of one tensor in PyTorch's layout. */
export interface StateTensor {
  /** Shape in checkpoints. */
  readonly shape: readonly number[];
  /** The values, row by row. */
  readonly data: Float32Array;
}

/** Values under their checkpoint names. */
export type StateValues = ReadonlyMap<string, StateTensor>;

/** A tensor of the state as files store it: counters are 64-bit integers there, as in PyTorch. */
export const fileTensor = (name: string, { shape, data }: StateTensor): FileTensor =>
  name.endsWith("num_batches_tracked")
    ? { dtype: "I64", shape, data: BigInt64Array.from(data, (count) => BigInt(Math.trunc(count))) }
    : { dtype: "F32", shape, data: data as Float32Array<ArrayBuffer> };

/** The names of running statistics in checkpoints, from the name of their tensor: mean, variance and number of batches. */
export const statisticsNames = (name: string): readonly [mean: string, variance: string, batches: string] => {
  const prefix = name.slice(0, -"running".length);
  return [`${prefix}running_mean`, `${prefix}running_var`, `${prefix}num_batches_tracked`];
};

/** Names and shapes of a checkpoint of this state, in the order of declaration. */
export const checkpointShapes = (state: StateBuilder): ReadonlyMap<string, readonly number[]> =>
  new Map([...state.declared.values()].flatMap(shapesOf));

const shapesOf = ({ name, shape, storage }: Declared): [string, readonly number[]][] => {
  if (storage !== "running") return [[name, shape]];
  const [mean, variance, batches] = statisticsNames(name);
  return [[mean, shape], [variance, shape], [batches, []]];
};

/** The device data of a declared tensor, from `values` in PyTorch's layout, which must have it. */
export const toDevice = ({ name, shape, storage }: Declared, values: StateValues): Float32Array => {
  const dataOf = (name: string) => values.get(name)!.data;
  if (storage === "same") return dataOf(name);
  if (storage !== "running") return transposed(dataOf(name), shape, "toDevice");
  const [mean, variance, batches] = statisticsNames(name);
  const [C] = shape;
  const data = new Float32Array(3 * C).fill(dataOf(batches)[0], 2 * C);
  data.set(dataOf(mean), 0);
  data.set(dataOf(variance), C);
  return data;
};

/** Transposes [O, I, KH, KW] to [KH, KW, I, O], or [O, I] to [I, O], for the device; or back, for a file. */
export const transposed = (
  data: Float32Array,
  shape: readonly number[],
  direction: "toDevice" | "toFile",
): Float32Array => {
  const [O, I] = shape;
  const spatial = sizeOf(shape) / O / I;
  const result = new Float32Array(data.length);
  const rows = I * spatial; // [O, rows] in files; on the device O comes last
  // By blocks that stay in the cache, since one of the two arrays is accessed with a large stride.
  for (let o0 = 0; o0 < O; o0 += BLOCK) {
    const o1 = Math.min(o0 + BLOCK, O);
    for (let row0 = 0; row0 < rows; row0 += BLOCK) {
      const row1 = Math.min(row0 + BLOCK, rows);
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

const BLOCK = 32;

/** The device data of a declared tensor under its checkpoint names, in PyTorch's layout. */
export const toFile = ({ name, shape, storage }: Declared, data: Float32Array): [string, StateTensor][] => {
  if (storage === "same") return [[name, { shape, data }]];
  if (storage !== "running") return [[name, { shape, data: transposed(data, shape, "toFile") }]];
  const [mean, variance, batches] = statisticsNames(name);
  const [C] = shape;
  return [
    [mean, { shape, data: data.slice(0, C) }],
    [variance, { shape, data: data.slice(C, 2 * C) }],
    [batches, { shape: [], data: data.slice(2 * C, 2 * C + 1) }],
  ];
};
