/** The most that this machine can: probes that do nothing but multiply and add, or nothing but move memory. */
import { Effect } from "effect";
import { constant, defineOp, reshape, type Tensor } from "../ops/graph/tensor.ts";
import { kernel, vectors } from "../ops/kernels/wgsl.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { sampled } from "./_sample.ts";
import { type Runs, runsOf, runsPerTiming, timed } from "./_timing.ts";

export interface Peaks {
  /** Multiplications and additions a second, f32. */
  readonly flops: number;
  /** Bytes read and written a second. */
  readonly bytes: number;
}

/** Measures both, in a few seconds. */
export const measurePeaks = Effect.gen(function* () {
  const { cpu } = (yield* Gpu).traits;
  const invocations = cpu ? 2 ** 14 : 2 ** 18;
  const words = cpu ? 2 ** 24 : 2 ** 26; // more than caches hold
  const sums = probe(sumsOp([constant([0.999, 0.001])], { invocations }));
  const copyByKernel = probe(copyOp([constant(new Float32Array(words))]));
  const copySeconds = Math.min(
    yield* leastSeconds(copyByKernel),
    yield* leastSeconds(copyByDriver(4 * words)),
  );
  return {
    flops: 2 * CHAINS * LENGTH * ROUNDS * invocations / (yield* leastSeconds(sums)),
    bytes: 2 * 4 * words / copySeconds,
  } satisfies Peaks as Peaks;
});

const leastSeconds = <E, R>(prepare: Effect.Effect<Runs, E, R>) =>
  Effect.scoped(Effect.gen(function* () {
    const runs = yield* prepare;
    const count = yield* runsPerTiming(runs);
    const milliseconds = yield* Effect.replicateEffect(timed(runs(count)), 3);
    return Math.min(...milliseconds) / count / 1e3;
  }));

const probe = (x: Tensor) => {
  const outputs = { sample: sampled(reshape(x, [x.shape[0] / 64, 64])) };
  return Effect.map(compile({ label: "a probe", outputs }), runsOf);
};

const CHAINS = 10; // independent sums of an invocation: none waits for its last addition, and all fit into registers
const LENGTH = 32; // additions that are written out, for a loop costs something as well
const ROUNDS = 64; // of the loop

/** Sums that need no memory, [invocations]. Nothing here returns early: on a CPU that alone makes it several times slower. */
const sumsOp = defineOp<{ readonly invocations: number }>("peakSums", {
  shape: (_, { invocations }) => [invocations],
  kernels: ({ inputs: [factors], output, adapter }) => {
    const lanes = adapter.cpu ? 8 : 256;
    const chains = (line: (i: number) => string) => Array.from({ length: CHAINS }, (_, i) => line(i));
    const step = chains((i) => `a${i} = fma(a${i}, m, s);`).join(" ");
    return [kernel({
      label: "peakSums",
      reads: { factors },
      writes: { y: output },
      workgroups: [output.shape[0] / lanes, 1, 1],
      workgroupSize: lanes,
      main: /* wgsl */ `
  let m = factors[0];
  let s = factors[1];
  ${chains((i) => `var a${i} = f32(id) + ${i}.5;`).join(" ")}
  for (var round = 0u; round < ${ROUNDS}u; round++) {
    ${new Array(LENGTH).fill(step).join("\n    ")}
  }
  y[id] = ${chains((i) => `a${i}`).join(" + ")};`,
    })];
  },
});

/** A copy of x. On a CPU each invocation goes through memory of its own; on a real GPU neighbours stay side by side. */
const copyOp = defineOp("peakCopy", {
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output, adapter }) => {
    const each = adapter.cpu ? 256 : 4;
    const invocations = output.shape[0] / 4 / each;
    return [kernel({
      label: "peakCopy",
      reads: { x: vectors(x) },
      writes: { y: vectors(output) },
      workgroups: [invocations / 256, 1, 1],
      workgroupSize: 256,
      main: adapter.cpu
        ? `for (var i = id * ${each}u; i < (id + 1u) * ${each}u; i++) { y[i] = x[i]; }`
        : `for (var i = 0u; i < ${each}u; i++) { y[id + i * ${invocations}u] = x[id + i * ${invocations}u]; }`,
    })];
  },
});

/** Copies of a buffer as the driver makes them. */
const copyByDriver = Effect.fnUntraced(function* (bytes: number) {
  const gpu = yield* Gpu;
  const usage = GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
  const [from, to] = [yield* gpu.buffer("probe", bytes, usage), yield* gpu.buffer("probe", bytes, usage)];
  gpu.device.queue.writeBuffer(from, 0, new Uint8Array(bytes)); // memory that was never written to may not be there
  return Effect.fnUntraced(function* (count: number) {
    const encoder = gpu.device.createCommandEncoder();
    for (let run = 0; run < count; run++) encoder.copyBufferToBuffer(from, 0, to, 0, bytes);
    gpu.device.queue.submit([encoder.finish()]);
    yield* Effect.flatten(gpu.read([{ buffer: to, bytes: 16 }]));
  });
});
