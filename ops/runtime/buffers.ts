/** The buffers of a program's tensors: given state, batch inputs, constants, and an arena for what is transient. */
import { Effect, type Scope } from "effect";
import type { Lowered } from "../compiler/lower.ts";
import { bytesOf, elementBytes, type Operand } from "../graph/kernel.ts";
import { constantData, inputName } from "../graph/tensor.ts";
import type { Arena, Placement, Share } from "./arena.ts";
import type { Region } from "./dispatches.ts";
import { Gpu, type GpuError, STORAGE } from "./gpu.ts";

/** Tensors that stay on the device between runs, by the name of their input. Several programs may share them. */
export type DeviceState = ReadonlyMap<string, GPUBuffer>;

/** The values of a batch input: as many as its shape has, in row-major order. */
export type Upload = Float32Array | Uint32Array;

/** Finds the buffer region of an operand. */
export type RegionOf = (operand: Operand) => Region;

/** A batch input: its values are uploaded before each run. */
export interface BatchInput {
  /** Name of the input. */
  readonly name: string;
  /** Where the kernels read it. */
  readonly operand: Operand;
}

/** The memory of a program. */
export interface ProgramMemory extends Pick<Share, "exclusively"> {
  /** Inputs to be uploaded before each run. */
  readonly inputs: readonly BatchInput[];
  /**
   * Makes sure that every buffer is there: only within `exclusively`. The result is the same function as before, unless
   * a buffer has been replaced since. Fails with GpuError.
   */
  readonly regionOf: Effect.Effect<RegionOf, GpuError>;
}

/**
 * Reserves the memory of a lowered graph until the scope ends. Inputs named in `state` are bound to the buffers there.
 */
export const memoryOf: (
  lowered: Lowered,
  state: DeviceState,
  arena: Arena,
) => Effect.Effect<ProgramMemory, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(
  function* ({ inputs, constants, kernels, plan, operandOf }, state, arena) {
    const gpu = yield* Gpu;
    const named = inputs.map((x): BatchInput => ({ name: inputName(x), operand: operandOf(x) }));
    const batch = named.filter(({ name }) => !state.has(name));

    const resident = new Map<number, GPUBuffer>();
    for (const { name, operand } of named) {
      const buffer = state.get(name);
      if (buffer !== undefined) resident.set(operand.storage, buffer);
    }
    for (const x of constants) {
      const operand = operandOf(x);
      const buffer = yield* gpu.buffer("constant", bytesOf(operand), STORAGE);
      gpu.device.queue.writeBuffer(buffer, 0, constantData(x) as Float32Array<ArrayBuffer>);
      resident.set(operand.storage, buffer);
    }

    const bytes = new Map(batch.map(({ name, operand }) => [name, bytesOf(operand)]));
    const { placement, exclusively } = yield* arena.join({ plan, kernels, inputs: bytes });
    let current: { readonly placement: Placement; readonly regionOf: RegionOf } | null = null;
    const regionsIn = (placement: Placement): RegionOf => {
      const locations = new Map(placement.tensors);
      for (const [storage, buffer] of resident) locations.set(storage, { buffer, offset: 0 });
      for (const { name, operand } of batch) {
        locations.set(operand.storage, { buffer: placement.inputs.get(name)!, offset: 0 });
      }
      return (operand) => {
        const { buffer, offset } = locations.get(operand.storage)!;
        return { buffer, offset: offset + operand.offset * elementBytes(operand), size: bytesOf(operand) };
      };
    };
    return {
      inputs: batch,
      exclusively,
      regionOf: Effect.map(placement, (placement) => {
        if (current?.placement !== placement) current = { placement, regionOf: regionsIn(placement) };
        return current.regionOf;
      }),
    };
  },
);
