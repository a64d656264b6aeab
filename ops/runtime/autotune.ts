/**
 * Autotuning: finds the fastest variant of the kernels for each kind of work of a graph by timing them on the device.
 */
import { Effect, type Scope, Stream } from "effect";
import type { Graph } from "../compiler/graph.ts";
import type { Choice } from "../compiler/kernel_selection.ts";
import { lower } from "../compiler/lower.ts";
import { bytesOf, elementBytes, type Kernel, type Operand } from "../graph/kernel.ts";
import { sizeOf } from "../graph/shape.ts";
import { type Dispatch, dispatchesOf, encodeDispatches } from "./dispatches.ts";
import { Gpu, type GpuError, mapped, STORAGE } from "./gpu.ts";
import { type Clock, clockOf, type DeviceTime, deviceTime, intervals } from "./timestamps.ts";

/** A choice whose variants have been timed. */
export interface Tuned extends Choice {
  /** Milliseconds that each variant takes; null where the adapter could not run it. */
  readonly milliseconds: Readonly<Record<string, number | null>>;
}

/** Runs of a variant whose median counts. */
const TIMINGS = 5;

/** Milliseconds after which no further run of a variant is started. */
const MAX_TIMING = 500;

/**
 * Times every variant of each of these `choices` of `graph`, alone on numbers of the right shapes, and chooses the
 * fastest. Where no variant runs, the choice stays as it was. Fails with GpuError.
 */
export const tune = (
  graph: Graph,
  isState: (name: string) => boolean,
  choices: readonly Choice[],
): Stream.Stream<Tuned, GpuError, Gpu> =>
  Stream.unwrap(Effect.gen(function* () {
    const gpu = yield* Gpu;
    const time = gpu.device.features.has("timestamp-query") ? yield* deviceTime(gpu) : null;
    const most = Math.max(0, ...choices.map(({ variants }) => variants.length));
    const lowered = Array.from(
      { length: most },
      (_, i) => lower(graph, gpu.traits, isState, (_, variants) => variants[i]),
    );
    return Stream.fromIterable(choices).pipe(Stream.mapEffect(Effect.fnUntraced(function* (choice) {
      const milliseconds: Record<string, number | null> = {};
      for (const [i, variant] of choice.variants.entries()) {
        const { kernels, produces } = lowered[i];
        const own = kernels.filter((_, at) => produces[at] === choice.produces);
        milliseconds[variant] = yield* timeOf(own, time).pipe(
          Effect.scoped,
          Effect.catchTag("GpuError", () => Effect.succeed(null)),
        );
      }
      return fastest(choice, milliseconds);
    })));
  }));

const fastest = (choice: Choice, milliseconds: Tuned["milliseconds"]): Tuned => {
  const time = (variant: string) => milliseconds[variant] ?? Infinity;
  const [chosen] = choice.variants.toSorted((a, b) => time(a) < time(b) ? -1 : time(a) > time(b) ? 1 : 0);
  return { ...choice, chosen, tuned: time(chosen) < Infinity, milliseconds };
};

/**
 * The median of some runs of kernels in milliseconds, by the device's clock, or the host's where the device has none.
 */
const timeOf = Effect.fnUntraced(function* (
  kernels: readonly Kernel[],
  time: DeviceTime | null,
): Effect.fn.Return<number, GpuError, Gpu | Scope.Scope> {
  const gpu = yield* Gpu;
  const buffers = yield* standInBuffers(gpu, kernels);
  const bind = yield* dispatchesOf(kernels);
  const dispatches = bind((operand) => ({
    buffer: buffers.get(operand.storage)!,
    offset: operand.offset * elementBytes(operand),
    size: bytesOf(operand),
  }));
  const clock = yield* clockOf(gpu, [{ first: 0, stage: "" }], kernels.length);
  const [anyBuffer] = buffers.values();
  const run = yield* timedRun(gpu, dispatches, clock, time, anyBuffer);
  yield* run; // drivers compile in the first one
  const times: number[] = [];
  for (const begin = performance.now(); times.length < TIMINGS;) {
    times.push(yield* run);
    if (performance.now() - begin > MAX_TIMING) break;
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
});

/**
 * A run of dispatches in a pass: waits for it and gives its milliseconds. `anyBuffer` is read back where there is no
 * clock.
 */
const timedRun = Effect.fnUntraced(function* (
  { device, buffer, check }: Gpu,
  dispatches: readonly Dispatch[],
  clock: Clock | null,
  time: DeviceTime | null,
  anyBuffer: GPUBuffer,
) {
  const bytes = clock?.bytes ?? 4;
  const staging = yield* buffer("times", bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  return Effect.gen(function* () {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({ timestampWrites: clock?.spans[0].timestampWrites });
    encodeDispatches(pass, dispatches);
    pass.end();
    if (clock === null) encoder.copyBufferToBuffer(anyBuffer, 0, staging, 0, bytes);
    else clock.copy(encoder, staging);
    const begin = performance.now();
    device.queue.submit([encoder.finish()]);
    yield* mapped(staging);
    const host = performance.now() - begin;
    const stamps = clock === null ? null : new BigUint64Array(staging.getMappedRange().slice(0));
    staging.unmap();
    yield* check;
    if (stamps === null || time === null) return host;
    const [{ begin: began, end: ended }] = intervals(stamps, time);
    return ended - began;
  });
});

/** Buffers for all operands of some kernels, filled with numbers, by storage. */
const standInBuffers = Effect.fnUntraced(function* (gpu: Gpu, kernels: readonly Kernel[]) {
  const operands = kernels.flatMap(({ bindings, workgroups }) => [
    ...bindings.map(({ operand }) => operand),
    ..."indirect" in workgroups ? [workgroups.indirect] : [],
  ]);
  const end = (x: Operand) => x.offset * elementBytes(x) + bytesOf(x);
  const buffers = new Map<number, GPUBuffer>();
  for (const [storage, same] of Map.groupBy(operands, ({ storage }) => storage)) {
    const usage = STORAGE | GPUBufferUsage.INDIRECT;
    const buffer = yield* gpu.buffer("a stand-in", Math.max(...same.map(end)), usage);
    buffers.set(storage, buffer);
    fill(gpu.device, buffer, same[0]);
  }
  return buffers;
});

/** Rows that counts say exist, or as many as there are if these are fewer. */
const ROWS = 2 ** 10;

/**
 * Fills a buffer with ordinary numbers in [-0.5, 0.5): no denormals, infinities or runs of zeros. Counts are `ROWS`.
 */
const fill = (device: GPUDevice, buffer: GPUBuffer, { dtype, shape }: Operand) => {
  if (dtype === "u32") {
    if (sizeOf(shape) === 1) device.queue.writeBuffer(buffer, 0, Uint32Array.of(ROWS));
    return;
  }
  const block = dtype === "f16" ? new Float16Array(2 ** 16) : new Float32Array(2 ** 16);
  block.forEach((_, i) => block[i] = (i * 0.618034) % 1 - 0.5);
  for (let at = 0; at < buffer.size; at += block.byteLength) {
    const bytes = Math.min(block.byteLength, buffer.size - at);
    device.queue.writeBuffer(buffer, at, block, 0, bytes / block.BYTES_PER_ELEMENT);
  }
};
