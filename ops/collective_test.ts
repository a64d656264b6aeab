import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "./_test_kit.ts";
import { add, mul } from "./arithmetic.ts";
import { allGather, allReduceSum } from "./collective.ts";
import { input, reshape } from "./graph/tensor.ts";
import { columnSums } from "./reduce.ts";
import { onRanks } from "./runtime/_test_ranks.ts";
import { Gpu, STORAGE } from "./runtime/gpu.ts";
import { compile } from "./runtime/program.ts";

const WORLD = 3;

gpuTest("allGather() and allReduceSum() give every rank what all ranks have", function* () {
  const results = yield* onRanks(WORLD, (rank) =>
    Effect.scoped(Effect.gen(function* () {
      const x = input("x", [2, 2]);
      const all = allGather(mul(x, 2), WORLD);
      const sum = allReduceSum(add(x, 1));
      const program = yield* compile({ label: "test", outputs: { all, sum, more: add(sum, mul(x, 10)) } });
      assert.deepEqual([program.syncPoints, program.exchanges], [1, 2]);
      return yield* yield* program.run({ x: Float32Array.of(rank, 1, 2, 3) });
    })));
  for (const [rank, { all, sum, more }] of results.entries()) {
    assert.deepEqual([...all], [0, 2, 4, 6, 2, 2, 4, 6, 4, 2, 4, 6]);
    assert.deepEqual([...sum], [6, 6, 9, 12]);
    assert.deepEqual([...more], [6 + 10 * rank, 16, 29, 42]);
  }
});

gpuTest(
  "a program stops once for all that is ready together, and late sums join the stops of others",
  function* () {
    const results = yield* onRanks(2, (rank) =>
      Effect.scoped(Effect.gen(function* () {
        // Two chains in lockstep: each has three exchanges that wait for one another.
        const chain = (factor: number) => {
          let x = mul(input(`x${factor}`, [4]), factor);
          const gradients = [];
          for (let i = 0; i < 3; i++) {
            gradients.push(allReduceSum(mul(x, x), { overlappable: true }));
            x = add(allReduceSum(mul(x, 0.5)), 1);
          }
          return { x, gradients };
        };
        const [a, b] = [chain(1), chain(2)];
        const state = input("state", [4]);
        const gradients = [...a.gradients, ...b.gradients];
        const next = gradients.reduce((sum, gradient) => add(sum, gradient), state);
        const program = yield* compile({ label: "test", outputs: { a: a.x, b: b.x, next } });
        assert.deepEqual([program.syncPoints, program.exchanges], [3, 12]);
        const value = new Float32Array(4).fill(rank);
        return yield* yield* program.run({ x1: value, x2: value, state: new Float32Array(4).fill(100) });
      })));
    // Ranks begin with 0 and 1 (0 and 2 in the second chain) and have the same value after the first exchange.
    const expected = (start: number) => {
      let [x, squares] = [[0, start], [] as number[]];
      for (let i = 0; i < 3; i++) {
        squares.push(x[0] ** 2 + x[1] ** 2);
        x = [0, 0].map(() => (x[0] + x[1]) * 0.5 + 1);
      }
      return { x: x[0], sum: squares.reduce((total, square) => total + square) };
    };
    for (const { a, b, next } of results) {
      assert.deepEqual([...a], new Array(4).fill(expected(1).x));
      assert.deepEqual([...b], new Array(4).fill(expected(2).x));
      assert.deepEqual([...next], new Array(4).fill(100 + expected(1).sum + expected(2).sum));
    }
  },
);

gpuTest("state moves on after the last stop, in every run", function* () {
  const results = yield* onRanks(2, (rank) =>
    Effect.scoped(Effect.gen(function* () {
      const gpu = yield* Gpu;
      const buffer = yield* gpu.buffer("weight", 256, STORAGE);
      gpu.device.queue.writeBuffer(buffer, 0, new Float32Array(64).fill(1));
      const weight = input("weight", [64]), x = input("x", [8, 64]);
      const slope = reshape(columnSums([reshape(mul(x, weight), [1, 8, 64])]), [64]);
      const next = add(weight, allReduceSum(slope, { overlappable: true }));
      const graph = { label: "test", updates: new Map([[weight, next]]), outputs: { next } };
      const program = yield* compile(graph, new Map([["weight", buffer]]));
      const uploads = { x: new Float32Array(512).fill(rank + 1) };
      const run = Effect.flatten(program.run(uploads));
      const values = [(yield* run).next[0], (yield* run).next[63]];
      // A profiled one, too; of it both sides of the stop are told.
      const { outputs, host, kernels } = yield* yield* (yield* program.profiler)(uploads);
      assert.equal(kernels?.length ?? program.dispatches, program.dispatches);
      assert.equal(host.filter(({ name }) => name === "encode and submit").length, 2);
      assert.equal(host.filter(({ name }) => name === "wait for other ranks").length, 2);
      return [...values, outputs.next[7]];
    })));
  const grown = [25, 25 ** 2, 25 ** 3]; // w + 8 · (1 + 2) · w
  assert.deepEqual(results, [grown, grown]);
});
