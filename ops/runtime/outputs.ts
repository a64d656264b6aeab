/** The outputs of a run on their way to the host. */
import { Effect, type Scope } from "effect";
import type { Graph } from "../compiler/graph.ts";
import type { Lowered } from "../compiler/lower.ts";
import { sizeOf } from "../graph/shape.ts";
import type { RegionOf } from "./buffers.ts";
import { Gpu, type GpuError } from "./gpu.ts";
import type { Clock } from "./timestamps.ts";

/** Runs that may be submitted before the outputs of the first are read. */
export const IN_FLIGHT = 2;

/** The outputs of a run by name, in row-major order; u32 as numbers. */
export type Outputs = Readonly<Record<string, Float32Array>>;

/** Staging buffers for the timestamps and outputs of runs in flight, one run each. */
export interface OutputRing {
  /** What times these runs; null where nothing does. */
  readonly clock: Clock | null;
  /** The staging buffer of the next run. */
  readonly next: () => GPUBuffer;
  /** Encodes the copies of a run's timestamps and outputs into its staging buffer. */
  readonly copy: (encoder: GPUCommandEncoder, staging: GPUBuffer, regionOf: RegionOf) => void;
  /** The contents of a staging buffer: outputs, and begin and end of each of the clock's spans. */
  readonly decode: (data: ArrayBuffer) => {
    readonly outputs: Outputs;
    readonly stamps: BigUint64Array | null;
  };
}

/** Staging buffers for runs of a graph that are timed by `clock`, until the scope ends. Fails with GpuError. */
export const outputRing: (
  graph: Graph,
  lowered: Pick<Lowered, "operandOf">,
  clock: Clock | null,
) => Effect.Effect<OutputRing, GpuError, Gpu | Scope.Scope> = Effect.fnUntraced(
  function* (graph, { operandOf }, clock) {
    const gpu = yield* Gpu;
    const stampBytes = clock?.bytes ?? 0;
    let size = stampBytes;
    const outputs = Object.entries(graph.outputs).map(([name, { shape, dtype }]) => {
      const offset = size;
      size += sizeOf(shape) * 4;
      return { name, dtype, offset, length: sizeOf(shape) };
    });
    const operands = Object.values(graph.outputs).map(operandOf);
    const ring: GPUBuffer[] = [];
    for (let i = 0; i <= IN_FLIGHT; i++) {
      ring.push(yield* gpu.buffer("outputs", size, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST));
    }
    let runs = 0;
    return {
      clock,
      next: () => ring[runs++ % ring.length],
      copy: (encoder, staging, regionOf) => {
        clock?.copy(encoder, staging);
        outputs.forEach(({ offset, length }, i) => {
          const source = regionOf(operands[i]);
          encoder.copyBufferToBuffer(source.buffer, source.offset, staging, offset, 4 * length);
        });
      },
      decode: (data) => ({
        stamps: clock === null ? null : new BigUint64Array(data, 0, stampBytes / 8),
        outputs: Object.fromEntries(outputs.map(({ name, dtype, offset, length }) => [
          name,
          dtype === "f32"
            ? new Float32Array(data, offset, length)
            : Float32Array.from(new Uint32Array(data, offset, length)),
        ])),
      }),
    };
  },
);
