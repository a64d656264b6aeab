import assert from "node:assert/strict";
import { Effect, Stream } from "effect";
import { assertClose, gpuTest, numbers, subgroupTest } from "../_test_kit.ts";
import { mul } from "../arithmetic.ts";
import { gradients } from "../autodiff.ts";
import { batchMoments, batchNorm } from "../batch_norm.ts";
import { conv2d } from "../conv2d.ts";
import { crossEntropyRows } from "../cross_entropy.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import { constant, input, reshape, type Tensor } from "../graph/tensor.ts";
import type { Convolution } from "../kernels/convolution.ts";
import { matmul, matmulTransposed } from "../matmul.ts";
import { rowSums, sum } from "../reduce.ts";
import { tune } from "../runtime/autotune.ts";
import { Gpu } from "../runtime/gpu.ts";
import { compile } from "../runtime/program.ts";
import { softmax } from "../softmax.ts";
import { type Choices, TunedChoices } from "./kernel_selection.ts";
import { overLimit } from "./limits.ts";
import { lower } from "./lower.ts";

const random = (shape: Shape, seed: number) => constant(numbers(sizeOf(shape), seed), shape);

/** A convolution and its gradients. */
const convolved = (x: Shape, w: Shape, options: Partial<Convolution>): Tensor[] => {
  const [X, W] = [random(x, 1), random(w, 2)];
  const y = conv2d(X, W, options);
  return [y, ...gradients(sum(mul(y, random(y.shape, 3))), [X, W])];
};

type Computations = Readonly<Record<string, () => readonly Tensor[]>>;

const computations: Computations = {
  "matmul()": () => [matmul(random([2, 37, 50], 1), random([2, 50, 72], 2))],
  "matmul() to odd columns": () => [matmul(random([1, 70, 33], 1), random([1, 33, 7], 2))],
  "matmulTransposed()": () => [matmulTransposed(random([2, 50, 36], 1), random([2, 50, 40], 2))],
  "conv2d()": () => convolved([3, 9, 11, 16], [3, 3, 16, 20], { pad: 1 }),
  "conv2d() of dilation 2": () => convolved([2, 11, 9, 12], [3, 3, 12, 8], { pad: 2, dilation: 2 }),
  "conv2d() without padding": () => convolved([2, 8, 7, 3], [3, 3, 3, 5], {}),
  "conv2d() of stride 2": () => convolved([2, 11, 10, 8], [3, 3, 8, 16], { stride: 2, pad: 1 }),
  "batchNorm() of many rows": () => {
    const x = random([2, 3000, 48], 1);
    return [batchNorm(x, random([48], 2), random([48], 3), batchMoments(x))];
  },
  "conv2d() with the moments of its tiles": () => {
    const y = conv2d(random([2, 32, 16, 6], 1), random([3, 3, 6, 24], 2), { stride: 2, pad: 1 });
    const x = reshape(y, [2, 128, 24]);
    return [batchNorm(x, random([24], 3), random([24], 4), batchMoments(x))];
  },
  "conv2d() in groups": () => convolved([2, 6, 6, 16], [3, 3, 8, 24], { pad: 1, groups: 2 }),
};

/** Computations that have one variant on a CPU: an invocation a row. */
const rowComputations: Computations = {
  "softmax() and its gradient": () => {
    const x = random([5, 300], 1);
    const y = softmax(x, 0.5);
    return [y, ...gradients(sum(mul(y, random([5, 300], 2))), [x])];
  },
  "crossEntropyRows()": () => {
    const [labels, rows, columns] = [[3, 700, 0, 512, 9], [4], [701]].map((x) =>
      constant(Uint32Array.from(x))
    );
    return [crossEntropyRows(random([5, 777], 1), labels, rows, columns)];
  },
  "rowSums() of three terms": () => [rowSums([1, 2, 3].map((seed) => random([7, 1030], seed)))],
};

/** Compares every variant of each choice with the first. */
const everyWay = (name: string, build: () => readonly Tensor[], cpu: boolean) =>
  function* () {
    const traits = { ...(yield* Gpu).traits, cpu };
    const outputs = Object.fromEntries(build().map((x, i) => [i, x]));
    const graph = { label: name, outputs };
    const run = (choices: Choices) =>
      compile(graph, new Map(), traits).pipe(
        Effect.flatMap((program) => Effect.flatten(program.run({}))),
        Effect.provideService(TunedChoices, () => choices),
        Effect.scoped,
      );
    const { choices } = lower(graph, traits, () => false);
    assert.ok(choices.length > 0);
    const plain = yield* run((_, variants) => variants.find((name) => !/^winograd|subgroups/.test(name)));
    for (const { work, variants, produces } of choices) {
      assert.ok(variants.length > 1, work);
      if (name in rowComputations) {
        assert.equal(variants.some((name) => /subgroups/.test(name)), traits.minSubgroupSize > 0);
      }
      for (const variant of variants) {
        const got = yield* run((other) => other === work ? variant : undefined);
        for (const i in got) {
          assertClose(got[i], plain[i], { rtol: 2e-6, what: `${variant}: ${produces.shape}` });
        }
      }
    }
  };

const same = (name: string, adapter: string) =>
  `every way to compute ${name} gives the same, as made for a ${adapter}`;

for (const [name, build] of Object.entries(computations)) {
  gpuTest(same(name, "CPU"), everyWay(name, build, true));
}
// On this machine also what a GPU would get runs, only slowly.
for (const [name, build] of Object.entries({ ...computations, ...rowComputations })) {
  gpuTest(same(name, "GPU"), everyWay(name, build, false));
}
for (const [name, build] of Object.entries(computations)) {
  await subgroupTest(same(name, "CPU with subgroups"), everyWay(name, build, true));
}
for (const [name, build] of Object.entries(rowComputations)) {
  await subgroupTest(same(name, "GPU with subgroups"), everyWay(name, build, false));
}

gpuTest("tune() times every variant, and its choice is the one that programs take", function* () {
  const { traits } = yield* Gpu;
  const x = random([64, 64, 64], 1);
  const y = matmul(random([64, 32], 1), random([32, 48], 2));
  const graph = { label: "a product and a sum", outputs: { y, z: mul(x, x) } };
  const { choices } = lower(graph, traits, () => false);
  assert.equal(choices.length, 2);
  for (
    const { work, variants, milliseconds, chosen, tuned } of yield* Stream.runCollect(
      tune(graph, () => false, choices),
    )
  ) {
    assert.ok(tuned);
    assert.deepEqual(Object.keys(milliseconds), variants);
    const times = variants.map((variant) => milliseconds[variant]!);
    assert.ok(times.every((time) => time > 0), work);
    assert.equal(milliseconds[chosen], Math.min(...times));
    const other = variants[variants.length - 1];
    const program = yield* compile(graph).pipe(
      Effect.provideService(TunedChoices, () => (wanted) => wanted === work ? other : undefined),
    );
    const taken = program.choices.map((choice) => [choice.chosen, choice.tuned]);
    assert.deepEqual(
      taken,
      choices.map((choice) => choice.work === work ? [other, true] : [choice.variants[0], false]),
    );
  }
});

Deno.test("lower() turns down variants whose scratch memory no binding can hold, and does not reserve it", () => {
  const x = input("x", [1, 16, 16, 512]), w = input("w", [3, 3, 512, 256]);
  const graph = { label: "wide", outputs: { y: conv2d(x, w, { pad: 1 }) } };
  const planned = (maxBinding: number) => {
    const traits = { cpu: true, maxStorageBuffers: 8, maxBinding, shaderF16: false, minSubgroupSize: 0 };
    const lowered = lower(graph, traits, () => false);
    const limits = { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: maxBinding };
    return {
      chosen: lowered.choices[0].chosen,
      scratch: lowered.plan.groups.scratch,
      refusal: overLimit(graph, lowered, limits),
    };
  };
  const [ample, tight] = [planned(2 ** 27), planned(2 ** 23)]; // 36 transformed weights a tile take 18 MiB
  assert.match(ample.chosen, /^winograd/);
  assert.notEqual(tight.chosen, ample.chosen);
  assert.ok(tight.scratch < ample.scratch, `${tight.scratch}`);
  assert.deepEqual([ample.refusal, tight.refusal], [null, null]);
});
