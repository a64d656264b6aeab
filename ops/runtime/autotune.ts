/** Finds the fastest variant of the kernels for each piece of a graph's work by trying them on the device. */
import { Effect, Stream } from "effect";
import type { Graph } from "../compiler/graph.ts";
import type { Choice } from "../compiler/kernel_selection.ts";
import { lower } from "../compiler/lower.ts";
import { bytesOf, elementBytes, type Kernel, type Operand } from "../graph/kernel.ts";
import { sizeOf } from "../graph/shape.ts";
import { dispatchesOf, encodeDispatches } from "./dispatches.ts";
import { Gpu, type GpuError, mapped, STORAGE } from "./gpu.ts";
import { clockOf, type DeviceTime, deviceTime, intervals } from "./timestamps.ts";

export interface Tuned extends Choice {
  /** Milliseconds that each variant takes; null where the adapter could not run it. */
  readonly milliseconds: Readonly<Record<string, number | null>>;
}

const TIMINGS = 5;

/** How long the timings of one variant go on, in milliseconds; a first one is always made. */
const PATIENCE = 500;

/**
 * Times every variant of each of these choices of `graph`, alone on numbers of the right shapes, and takes the fastest.
 * Where no variant of a choice runs it stays as it was.
 */
export const tune = (
  graph: Graph,
  isState: (name: string) => boolean,
  choices: readonly Choice[],
): Stream.Stream<Tuned, GpuError, Gpu> =>
  Stream.unwrap(Effect.gen(function* () {
    const gpu = yield* Gpu;
    const { traits } = gpu;
    const stampTime = gpu.device.features.has("timestamp-query") ? yield* deviceTime(gpu) : null;
    const most = Math.max(0, ...choices.map(({ variants }) => variants.length));
    const lowered = Array.from(
      { length: most },
      (_, i) => lower(graph, traits, isState, (_, variants) => variants[i]),
    );
    return Stream.fromIterable(choices).pipe(Stream.mapEffect(Effect.fnUntraced(function* (choice) {
      const milliseconds: Record<string, number | null> = {};
      for (const [i, variant] of choice.variants.entries()) {
        const { kernels, produces } = lowered[i];
        const own = kernels.filter((_, at) => produces[at] === choice.produces);
        milliseconds[variant] = yield* timeOf(own, stampTime).pipe(
          Effect.scoped,
          Effect.catchTag("GpuError", () => Effect.succeed(null)),
        );
      }
      const time = (variant: string) => milliseconds[variant] ?? Infinity;
      const [chosen] = choice.variants.toSorted((a, b) => time(a) < time(b) ? -1 : time(a) > time(b) ? 1 : 0);
      return { ...choice, chosen, tuned: time(chosen) < Infinity, milliseconds } satisfies Tuned as Tuned;
    })));
  }));

/** The median time of a few runs of kernels, by the device's clock, or by the host's where the device has none. */
const timeOf = Effect.fnUntraced(function* (kernels: readonly Kernel[], time: DeviceTime | null) {
  const gpu = yield* Gpu;
  const { device } = gpu;
  const operands = kernels.flatMap(({ bindings, workgroups }) => [
    ...bindings.map(({ operand }) => operand),
    ..."indirect" in workgroups ? [workgroups.indirect] : [],
  ]);
  const buffers = new Map<number, GPUBuffer>();
  const end = (x: Operand) => x.offset * elementBytes(x) + bytesOf(x);
  for (const [storage, same] of Map.groupBy(operands, ({ storage }) => storage)) {
    const usage = STORAGE | GPUBufferUsage.INDIRECT;
    const buffer = yield* gpu.buffer("a stand-in", Math.max(...same.map(end)), usage);
    buffers.set(storage, buffer);
    fill(device, buffer, same[0]);
  }
  const bind = yield* dispatchesOf(kernels);
  const dispatches = bind((operand) => ({
    buffer: buffers.get(operand.storage)!,
    offset: operand.offset * elementBytes(operand),
    size: bytesOf(operand),
  }));
  const clock = yield* clockOf(gpu, [{ first: 0, stage: "" }], kernels.length);
  const bytes = clock?.bytes ?? 4;
  const staging = yield* gpu.buffer("times", bytes, GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST);
  const run = Effect.gen(function* () {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass({ timestampWrites: clock?.spans[0].timestampWrites });
    encodeDispatches(pass, dispatches);
    pass.end();
    if (clock === null) encoder.copyBufferToBuffer([...buffers.values()][0], 0, staging, 0, bytes);
    else clock.copy(encoder, staging);
    const begin = performance.now();
    device.queue.submit([encoder.finish()]);
    yield* mapped(staging);
    const host = performance.now() - begin;
    const stamps = clock === null ? null : new BigUint64Array(staging.getMappedRange().slice(0));
    staging.unmap();
    yield* gpu.check;
    if (stamps === null || time === null) return host;
    const [{ begin: began, end: ended }] = intervals(stamps, time);
    return ended - began;
  });
  yield* run; // drivers compile in the first one
  const times: number[] = [];
  for (const begin = performance.now(); times.length < TIMINGS;) {
    times.push(yield* run);
    if (performance.now() - begin > PATIENCE) break;
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
});

/** Puts numbers into a buffer about which nothing is rare; counts are such that all rows exist. */
const fill = (device: GPUDevice, buffer: GPUBuffer, { dtype, shape }: Operand) => {
  if (dtype === "u32") {
    if (sizeOf(shape) === 1) device.queue.writeBuffer(buffer, 0, Uint32Array.of(2 ** 10));
    return;
  }
  const block = dtype === "f16" ? new Float16Array(2 ** 16) : new Float32Array(2 ** 16);
  block.forEach((_, i) => block[i] = (i * 0.618034) % 1 - 0.5);
  for (let at = 0; at < buffer.size; at += block.byteLength) {
    device.queue.writeBuffer(
      buffer,
      at,
      block,
      0,
      Math.min(block.byteLength, buffer.size - at) / block.BYTES_PER_ELEMENT,
    );
  }
};
