/** The state of a run between checkpoints (PyTorch's layout) and the device. */
import { Effect, type Scope } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import { type StoredTensor, widened } from "../../data/formats/file_tensor.ts";
import { normalQuantiles } from "../../data/random/normals.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { type Draw, drawNormals } from "../../ops/runtime/draw_normals.ts";
import { Gpu, type GpuError, STORAGE } from "../../ops/runtime/gpu.ts";
import type { DeviceState } from "../../ops/runtime/program.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";
import { countNonFinite } from "./divergence.ts";
import { InitialTensor } from "./initial_state.ts";
import { type StateTensor, type StateValues, toDevice, toFile } from "./state_layout.ts";

/**
 * Tensors of a file as state: read one after the other, other types widened to 32-bit floats. Fails with the
 * `FormatError` of the first tensor that cannot be read.
 */
export const readTensors: (
  tensors: ReadonlyMap<string, StoredTensor>,
) => Effect.Effect<StateValues, FormatError> = Effect.fnUntraced(function* (
  tensors: ReadonlyMap<string, StoredTensor>,
) {
  const values = new Map<string, StateTensor>();
  for (const [name, { dtype, shape, values: read }] of tensors) {
    values.set(name, { shape, data: widened(dtype, yield* read) });
  }
  return values;
});

/** The same of `file`, which also fails with a `FormatError` that names the tensors whose values are not finite. */
export const readState: (
  file: string,
  tensors: ReadonlyMap<string, StoredTensor>,
) => Effect.Effect<StateValues, FormatError> = Effect.fnUntraced(function* (
  file: string,
  tensors: ReadonlyMap<string, StoredTensor>,
) {
  const values = yield* readTensors(tensors);
  yield* expectFiniteValues(file, values);
  return values;
});

/** Fails with a `FormatError` that names the first tensors of a file with values that are not finite. */
export const expectFiniteValues = (
  file: string,
  tensors: ReadonlyMap<string, { readonly data: Float32Array }>,
): Effect.Effect<void, FormatError> => {
  const bad = [...tensors].flatMap(([name, { data }]) => nonFiniteValues(name, data) ?? []);
  if (bad.length === 0) return Effect.void;
  const more = bad.length > 3 ? `, and those of ${bad.length - 3} more tensors,` : "";
  const reason = `${bad.slice(0, 3).join(", ")}${more} are not finite in 32 bits (slotcon inspect names all)`;
  return Effect.fail(new FormatError({ subject: file, reason }));
};

/** How many values of a tensor are infinite or NaN, in words; null where all are finite. */
export const nonFiniteValues = (name: string, data: Float32Array): string | null => {
  const count = countNonFinite(data);
  return count === 0 ? null : `${count} of the ${data.length} values of ${name}`;
};

/** Are all values positive zeros? */
const isZero = (tensor: StateTensor): boolean => {
  if (tensor instanceof InitialTensor) return tensor.isZero;
  const { buffer, byteOffset, length } = tensor.data;
  const words = new Uint32Array(buffer, byteOffset, length);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false; // faster than every()
  return true;
};

/**
 * Buffers for all declared state, filled with `values`, which must have all of it; they live as long as the scope. Fails
 * with a `GpuError` where the device lacks memory.
 */
export const upload: (
  state: StateBuilder,
  values: StateValues,
) => Effect.Effect<DeviceState, GpuError, Gpu | Scope.Scope> = Effect.fn("upload")(function* (
  state: StateBuilder,
  values: StateValues,
) {
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
      const same = draws.get(tensor)?.buffers ?? []; // an average begins as what it follows
      draws.set(tensor, { ...draw, buffers: [...same, buffer] });
    } else if (tensor === null || !isZero(tensor)) { // new buffers are zero, and so are all of an optimiser's
      queue.writeBuffer(buffer, 0, toDevice(declared, values) as Float32Array<ArrayBuffer>);
    }
  }
  if (draws.size > 0) yield* drawNormals([...draws.values()], normalQuantiles());
  return buffers;
});

/**
 * Copies the state after all runs submitted so far, on the device. The inner effect, to be run once, waits for the copy
 * and reads it back piece by piece, yielding in between. Runs submitted meanwhile do not change the copy. Both fail with
 * a `GpuError`.
 */
export const snapshot: (
  state: StateBuilder,
  buffers: DeviceState,
) => Effect.Effect<Effect.Effect<StateValues, GpuError>, GpuError, Gpu> = Effect.fn("snapshot")(function* (
  state: StateBuilder,
  buffers: DeviceState,
) {
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
    return values;
  }).pipe(Effect.uninterruptible);
});

const bytesOnDevice = ({ tensor }: Declared) => sizeOf(tensor.shape) * 4;

/** Bytes that are read back and put into PyTorch's layout at a time: other work waits for that long. */
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

/** The state after all runs submitted so far, on the host. Fails with a `GpuError`. */
export const download = (
  state: StateBuilder,
  buffers: DeviceState,
): Effect.Effect<StateValues, GpuError, Gpu> => Effect.flatten(snapshot(state, buffers));
