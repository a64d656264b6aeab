/** The state of a run: initial values, and its way between checkpoints (PyTorch's layout) and the device. */
import { Effect } from "effect";
import { type FileTensor, type StoredTensor, widened } from "../data/formats/file_tensor.ts";
import { randomStream } from "../data/random.ts";
import type { DeviceState } from "../ops/compile.ts";
import { Gpu, STORAGE } from "../ops/gpu.ts";
import { sizeOf } from "../ops/tensor.ts";
import type { Declared, StateBuilder } from "./model/network.ts";

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

/** Tensors of a file as state: read one after the other, other types widened to 32-bit floats. */
export const readState = Effect.fnUntraced(function* (tensors: ReadonlyMap<string, StoredTensor>) {
  const values = new Map<string, StateTensor>();
  for (const [name, { dtype, shape, values: read }] of tensors) {
    values.set(name, { shape, data: widened(dtype, yield* read) });
  }
  return values as StateValues;
});

/** What tells the draws of initial values from the other draws of a seed. */
const INITIAL_VALUES = 1;

/** Initial values of all declared state: the teacher starts as a copy of the student. */
export const initialState = (state: StateBuilder, seed: number): StateValues => {
  const values = new Map<string, StateTensor>();
  let index = 0;
  for (const declared of state.declared.values()) {
    const student = values.get(declared.name.replace(/^(encoder|projector|grouping)_k\./, "$1_q."));
    if (student !== undefined && declared.storage !== "running") {
      values.set(declared.name, { shape: declared.shape, data: student.data.slice() });
      continue;
    }
    for (const [name, tensor] of initialTensors(declared, seed, index++)) values.set(name, tensor);
  }
  return values;
};

const initialTensors = (
  { name, shape, storage, init }: Declared,
  seed: number,
  index: number,
): [string, StateTensor][] => {
  if (storage === "running") {
    const at = name.slice(0, -"running".length);
    return [
      [`${at}running_mean`, { shape, data: new Float32Array(shape[0]) }],
      [`${at}running_var`, { shape, data: new Float32Array(shape[0]).fill(1) }],
      [`${at}num_batches_tracked`, { shape: [], data: new Float32Array(1) }],
    ];
  }
  const data = new Float32Array(sizeOf(shape));
  if (init.kind === "constant") return [[name, { shape, data: data.fill(init.value) }]];
  const random = randomStream(seed, INITIAL_VALUES, index);
  for (let i = 0; i < data.length; i++) {
    let value: number;
    do value = init.deviation * random.normal(); while (init.kind === "truncated" && Math.abs(value) > 2);
    data[i] = value;
  }
  return [[name, { shape, data }]];
};

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
const toDevice = ({ name, shape, storage }: Declared, values: StateValues): Float32Array => {
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
const turned = (
  data: Float32Array,
  shape: readonly number[],
  direction: "toDevice" | "toFile",
): Float32Array => {
  const [O, I] = shape;
  const spatial = sizeOf(shape) / O / I;
  const result = new Float32Array(data.length);
  for (let o = 0; o < O; o++) {
    for (let i = 0; i < I; i++) {
      for (let s = 0; s < spatial; s++) {
        const file = (o * I + i) * spatial + s, device = (s * I + i) * O + o;
        if (direction === "toDevice") result[device] = data[file];
        else result[file] = data[device];
      }
    }
  }
  return result;
};

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

/** Buffers for all declared state, filled with `values`; they live as long as the scope. */
export const upload = Effect.fn("upload")(function* (state: StateBuilder, values: StateValues) {
  const gpu = yield* Gpu;
  const buffers = new Map<string, GPUBuffer>();
  for (const declared of state.declared.values()) {
    const data = toDevice(declared, values);
    const buffer = yield* gpu.buffer(declared.name, data.byteLength, STORAGE);
    gpu.device.queue.writeBuffer(buffer, 0, data as Float32Array<ArrayBuffer>);
    buffers.set(declared.name, buffer);
  }
  return buffers as DeviceState;
});

/**
 * Copies the state as it is after all runs submitted so far, on the device; the inner effect, to be run once, waits for
 * the copy and brings it to the host, piece by piece, with room for other work in between. Runs submitted meanwhile do
 * not disturb it.
 */
export const snapshot = Effect.fn("snapshot")(function* (state: StateBuilder, buffers: DeviceState) {
  const gpu = yield* Gpu;
  const pieces = piecesOf([...state.declared.values()]);
  const reads = yield* Effect.forEach(
    pieces,
    (piece) =>
      gpu.read(piece.map((each) => ({ buffer: buffers.get(each.name)!, bytes: bytesOnDevice(each) }))),
  );
  return Effect.gen(function* () {
    const values = new Map<string, StateTensor>();
    for (const [i, read] of reads.entries()) {
      const data = yield* read;
      for (const [j, declared] of pieces[i].entries()) {
        for (const [name, tensor] of toFile(declared, new Float32Array(data[j]))) values.set(name, tensor);
      }
      yield* Effect.yieldNow;
    }
    return values as StateValues;
  }).pipe(Effect.uninterruptible);
});

const bytesOnDevice = ({ tensor }: Declared) => sizeOf(tensor.shape) * 4;

/** Some tens of MiB are brought over and put into PyTorch's layout in a moment. */
const PIECE = 2 ** 25;

const piecesOf = (all: readonly Declared[]): Declared[][] => {
  const pieces: Declared[][] = [];
  let room = 0;
  for (const declared of all) {
    const bytes = bytesOnDevice(declared);
    if (bytes > room) {
      pieces.push([]);
      room = PIECE;
    }
    pieces[pieces.length - 1].push(declared);
    room -= bytes;
  }
  return pieces;
};

/** The state as it is now, on the host. */
export const download = (state: StateBuilder, buffers: DeviceState) =>
  Effect.flatten(snapshot(state, buffers));
