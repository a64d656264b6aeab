import assert from "node:assert/strict";
import { Effect } from "effect";
import { assertClose, gpuTest, numbers } from "../_test_kit.ts";
import { argmaxMap } from "../argmax_map.ts";
import { add, mul, relu, sub } from "../arithmetic.ts";
import { gradients } from "../autodiff.ts";
import { batchMoments, batchNorm } from "../batch_norm.ts";
import type { Graph } from "../compiler/graph.ts";
import { concat } from "../concat.ts";
import { conv2d } from "../conv2d.ts";
import { enlargedCrossEntropy } from "../enlarged_cross_entropy.ts";
import { constant, input, inputName, reshape, type Tensor } from "../graph/tensor.ts";
import { normalizeBytes } from "../image/normalize_pixels.ts";
import { matmul } from "../matmul.ts";
import { maxPool } from "../max_pool.ts";
import { sum } from "../reduce.ts";
import { resizeBilinear } from "../resize_bilinear.ts";
import { toFloat } from "../to_float.ts";
import { Gpu, STORAGE } from "./gpu.ts";
import { IN_FLIGHT } from "./outputs.ts";
import { compile } from "./program.ts";

/**
 * A small network with every kind of kernel: fused, reductions, convolution, products, pooling, and their gradients.
 */
const network = (N = 8): Graph => {
  const x = constant(numbers(N * 16 * 16 * 8), [N, 16, 16, 8]);
  const w = constant(numbers(3 * 3 * 8 * 16, 2), [3, 3, 8, 16]);
  const v = constant(numbers(16 * 64, 3), [16, 64]);
  const rows = reshape(conv2d(x, w, { pad: 1 }), [2, N / 2 * 16 * 16, 16]);
  const normal = batchNorm(rows, constant(numbers(16, 4)), constant(numbers(16, 5)), batchMoments(rows));
  const pooled = maxPool(relu(reshape(normal, [N, 16, 16, 16])), { size: 3, stride: 2, pad: 1 });
  const y = matmul(pooled, v);
  const loss = sum(mul(y, y));
  const [dx, dw, dv] = gradients(loss, [x, w, v]);
  return { label: "network", outputs: { y, loss, dx, dw, dv } };
};

/** The ops of a segmentor between its convolutions, on bytes. */
const segmentor = (N = 64): Graph => {
  const [S, K] = [16, 5];
  const words = Uint32Array.from(numbers(N * S * S), (value) => (value + 1) * 2 ** 31);
  const sizes = Uint32Array.from({ length: 2 * N }, (_, i) => S - i % 5);
  const pixels = constant(words, [N, S, S]);
  const images = normalizeBytes(
    pixels,
    { mean: [120, 110, 100], std: [60, 50, 40] },
    constant(sizes, [N, 2]),
  );
  const small = resizeBilinear(images, { height: 8, width: 8, alignCorners: true });
  const x = constant(numbers(N * 8 * 8 * 13, 2), [N, 8, 8, 13]), v = constant(numbers(16 * K, 3), [16, K]);
  const logits = matmul(concat([small, x]), v);
  const labels = constant(words.map((word) => word % (K + 1)), [N, S, S]);
  const { loss, hits } = enlargedCrossEntropy(logits, labels, { alignCorners: false });
  const [dx, dv] = gradients(sum(loss), [x, v]);
  const classes = toFloat(argmaxMap(logits, { height: S, width: S }));
  return { label: "segmentor", outputs: { images, small, loss, hits, classes, dx, dv } };
};

gpuTest("compile() binds tensors larger than a binding in slices, with the same result", function* () {
  const { traits } = yield* Gpu;
  const cases: readonly (readonly [Graph, readonly number[]])[] = [
    [network(), [64 * 1024, 16 * 1024]],
    [network(1), [8 * 1024, 4 * 1024]], // rows of a single image are no slices: windows reach beyond them
    [segmentor(), [96 * 1024, 32 * 1024]],
    [segmentor(1), [2 * 1024, 512]],
  ];
  for (const [graph, limits] of cases) {
    const whole = yield* yield* (yield* compile(graph)).run({});
    for (const maxBinding of limits) {
      const program = yield* compile(graph, new Map(), { ...traits, maxBinding });
      const sliced = yield* yield* program.run({});
      for (const name of Object.keys(graph.outputs)) {
        const what = `${name} of the ${graph.label} under ${maxBinding}`;
        assertClose(sliced[name], whole[name], { rtol: 1e-5, what });
      }
    }
  }
});

gpuTest(
  "compile() gives the same result with as few bindings as WebGPU guarantees, and with a real GPU's tiles",
  function* () {
    const graph = network();
    const { traits } = yield* Gpu;
    const whole = yield* yield* (yield* compile(graph)).run({});
    for (const other of [{ ...traits, maxStorageBuffers: 8 }, { ...traits, cpu: false }]) {
      const result = yield* yield* (yield* compile(graph, new Map(), other)).run({});
      for (const name of Object.keys(graph.outputs)) {
        assertClose(result[name], whole[name], { rtol: 1e-5, what: name });
      }
    }
  },
);

gpuTest("a program replaces state in place only after its last reader, run after run", function* () {
  const gpu = yield* Gpu;
  const a = input("a", [8]), b = input("b", [8]);
  // b's next value reads a's current one, so a may not be overwritten before; a's reads its own next value's input.
  const nextA = add(a, 1), nextB = add(b, mul(a, 2));
  const state = new Map<string, GPUBuffer>();
  for (const name of ["a", "b"]) {
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    state.set(name, yield* gpu.buffer(name, 32, usage));
  }
  const updates = new Map([[a, nextA], [b, nextB]]);
  const program = yield* compile({ label: "counters", updates, outputs: { a: nextA, b: nextB } }, state);
  const seen: number[][] = [];
  for (let run = 0; run < IN_FLIGHT + 3; run++) {
    const result = yield* yield* program.run({});
    seen.push([result.a[0], result.b[7]]);
  }
  assert.deepEqual(seen, [[1, 0], [2, 2], [3, 6], [4, 12], [5, 20]]);
});

gpuTest(
  "what becomes of small state of one shape is the work of one kernel, and of more where bindings are few",
  function* () {
    const gpu = yield* Gpu;
    const names = Array.from({ length: 5 }, (_, i) => i);
    const updates = new Map<Tensor, Tensor>();
    const outputs: Record<string, Tensor> = {};
    for (const i of names) {
      const [p, v, q] = ["p", "v", "q"].map((name) => input(`${name}${i}`, [6]));
      const nextV = add(mul(0.5, v), constant(numbers(6, i)));
      updates.set(v, nextV).set(p, sub(p, nextV));
      // Another state that follows p as it was, and is read afterwards.
      const nextQ = add(q, mul(0.25, sub(p, q)));
      updates.set(q, nextQ);
      outputs[i] = sum(mul(nextQ, nextQ));
    }
    const run = Effect.fnUntraced(function* (maxStorageBuffers: number) {
      const state = new Map<string, GPUBuffer>();
      for (const name of [...updates.keys()].map(inputName)) {
        state.set(name, yield* gpu.buffer(name, 24, STORAGE));
      }
      const traits = { ...gpu.traits, maxStorageBuffers };
      const program = yield* compile({ label: "momentum", updates, outputs }, state, traits);
      let last: Readonly<Record<string, Float32Array>> = {};
      for (let step = 0; step < 3; step++) last = yield* Effect.flatten(program.run({}));
      return { last, dispatches: program.dispatches };
    });
    const [many, few] = [yield* run(24), yield* run(8)];
    assert.equal(many.dispatches, 2 + names.length); // the sums are kernels of their own
    assert.ok(few.dispatches > many.dispatches && few.dispatches < 3 * names.length + names.length);
    for (const i of names) {
      let squares = 0;
      for (const slope of numbers(6, i)) {
        let [p, v, q] = [0, 0, 0];
        for (let step = 0; step < 3; step++) {
          q += 0.25 * (p - q);
          v = 0.5 * v + slope;
          p -= v;
        }
        squares += q * q;
      }
      for (const { last } of [many, few]) assertClose(last[i], [squares], { rtol: 1e-6 });
    }
  },
);

gpuTest("the memory plan counts what lives at once, and shares buffers nearly as tightly", function* () {
  const { plan } = yield* compile(network());
  assert.ok(plan.total >= plan.needed);
  assert.ok(plan.total <= 1.25 * plan.needed, `${plan.total} bytes reserved for ${plan.needed}`);
});

gpuTest(
  "a program says how long the device took for each stage of its graph, and gives the same result",
  function* () {
    const timed = (yield* Gpu).report.features.includes("timestamp-query");
    const light = sum(constant(numbers(64), [8, 8]));
    const heavy = matmul(constant(numbers(2 ** 18), [512, 512]), constant(numbers(2 ** 18, 2), [512, 512]));
    const graph = { label: "stages", outputs: { light, heavy: sum(heavy) } };
    const untimed = yield* compile(graph);
    const want = yield* yield* untimed.run({});
    const stageOf = ({ id }: { id: number }) => id <= light.id ? "light" : "heavy";
    const program = yield* compile({ ...graph, stageOf });
    assert.deepEqual(yield* yield* program.run({}), want);

    const start = performance.now();
    yield* yield* program.run({});
    const wall = (performance.now() - start) / 1000;
    const seconds = program.stageSeconds();
    assert.equal(untimed.stageSeconds(), null);
    assert.equal(seconds !== null, timed);
    if (seconds === null) return;
    assert.deepEqual(Object.keys(seconds), ["light", "heavy"]);
    assert.ok(seconds.light > 0 && seconds.heavy > seconds.light, JSON.stringify(seconds));
    assert.ok(seconds.light + seconds.heavy < wall, `${JSON.stringify(seconds)} in ${wall} s`);
  },
);

gpuTest(
  "a profiled run has the outputs of any run, and says when each kernel ran, in order and within the run",
  function* () {
    const timed = (yield* Gpu).report.features.includes("timestamp-query");
    const graph = {
      ...network(),
      stageOf: ({ shape }: { shape: readonly number[] }) => `rank ${shape.length}`,
    };
    const program = yield* compile(graph);
    const want = yield* yield* program.run({});
    const profiled = yield* program.profiler;
    const start = performance.now();
    const { outputs, kernels, host } = yield* yield* profiled({});
    const end = performance.now();
    assert.deepEqual(outputs, want);
    assert.deepEqual(host.map(({ name }) => name), ["upload", "encode and submit", "wait for the device"]);
    assert.equal(kernels !== null, timed);
    if (kernels === null) return;
    assert.equal(kernels.length, program.dispatches);
    let last = start;
    const sums: Record<string, number> = {};
    for (const { name, stage, makes, begin, end } of kernels) {
      assert.ok(last <= begin && begin <= end, `${name} from ${begin} to ${end}, after ${last}`);
      assert.equal(stage, `rank ${makes.shape.length}`);
      sums[stage] = (sums[stage] ?? 0) + (end - begin) / 1000;
      last = end;
    }
    assert.ok(last <= end, `the last kernel ended at ${last}, the run at ${end}`);
    const seconds = program.stageSeconds()!;
    assert.deepEqual(Object.keys(sums).sort(), Object.keys(seconds).sort());
    for (const [stage, sum] of Object.entries(sums)) assertClose([sum], [seconds[stage]], { rtol: 1e-3 });
  },
);
