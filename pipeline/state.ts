/** The state of a run: initial values, and its way between checkpoints (PyTorch's layout) and the device. */
import { Effect } from "effect";
import { type FileTensor, type StoredTensor, widened } from "../data/formats/file_tensor.ts";
import { fillNormals, NORMAL_STEP, normalQuantiles } from "../data/normals.ts";
import type { DeviceState } from "../ops/compile.ts";
import { Gpu, STORAGE } from "../ops/gpu.ts";
import { type Draw, drawNormals } from "../ops/normals.ts";
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

/** Initial values: `upload` has the device draw them; whoever asks for their `data` has the host draw the same bits. */
class InitialTensor implements StateTensor {
  readonly shape: readonly number[];
  #data: Float32Array | null = null;

  constructor(readonly declared: Declared, readonly key: readonly number[]) {
    this.shape = declared.shape;
  }

  get isZero(): boolean {
    const { init } = this.declared;
    return init.kind === "constant" && init.value === 0;
  }

  /** What the device has to draw; null where all values are the same. */
  get draw(): Omit<Draw, "buffers"> | null {
    const { shape, init } = this.declared;
    if (init.kind === "constant") return null;
    return { count: sizeOf(shape), key: this.key, scale: init.deviation * NORMAL_STEP };
  }

  get data(): Float32Array {
    return this.#data ??= this.#drawn();
  }

  #drawn() {
    const { shape, storage, init } = this.declared;
    const data = new Float32Array(sizeOf(shape));
    if (init.kind === "constant") return data.fill(init.value);
    fillNormals(data, this.key, init.deviation); // in the device's layout, so that it can write one after the other
    return storage === "same" ? data : turned(data, shape, "toFile");
  }
}

/** Is it one of `initialState`? */
export const isInitial = (tensor: StateTensor | undefined) => tensor instanceof InitialTensor;

/** Initial values of all declared state, drawn when they are needed: the teacher starts as a copy of the student. */
export const initialState = (state: StateBuilder, seed: number): StateValues => {
  const values = new Map<string, StateTensor>();
  let index = 0;
  for (const declared of state.declared.values()) {
    const { name, shape, storage } = declared;
    if (storage === "running") {
      const at = name.slice(0, -"running".length);
      index++;
      values.set(`${at}running_mean`, { shape, data: new Float32Array(shape[0]) });
      values.set(`${at}running_var`, { shape, data: new Float32Array(shape[0]).fill(1) });
      values.set(`${at}num_batches_tracked`, { shape: [], data: new Float32Array(1) });
      continue;
    }
    const student = values.get(name.replace(/^(encoder|projector|grouping)_k\./, "$1_q."));
    values.set(name, student ?? new InitialTensor(declared, [seed, INITIAL_VALUES, index++]));
  }
  return values;
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

/** Does it hold nothing but zeros, none of them negative? */
const isZero = (tensor: StateTensor): boolean => {
  if (tensor instanceof InitialTensor) return tensor.isZero;
  const { buffer, byteOffset, length } = tensor.data;
  const words = new Uint32Array(buffer, byteOffset, length);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false; // faster than every()
  return true;
};

/** Buffers for all declared state, filled with `values`; they live as long as the scope. */
export const upload = Effect.fn("upload")(function* (state: StateBuilder, values: StateValues) {
  const gpu = yield* Gpu;
  const { queue } = gpu.device;
  const buffers = new Map<string, GPUBuffer>();
  const draws = new Map<StateTensor, Draw>();
  for (const declared of state.declared.values()) {
    const { name, storage } = declared;
    const buffer = yield* gpu.buffer(name, bytesOnDevice(declared), STORAGE);
    buffers.set(name, buffer);
    const tensor = storage === "running" ? null : values.get(name)!;
    const draw = tensor instanceof InitialTensor ? tensor.draw : null;
    if (tensor !== null && draw !== null) {
      const same = draws.get(tensor)?.buffers ?? []; // the teacher begins as the student does
      draws.set(tensor, { ...draw, buffers: [...same, buffer] });
    } else if (tensor === null || !isZero(tensor)) { // as buffers are to begin with, and all of an optimiser's
      queue.writeBuffer(buffer, 0, toDevice(declared, values) as Float32Array<ArrayBuffer>);
    }
  }
  if (draws.size > 0) yield* drawNormals([...draws.values()], normalQuantiles());
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
