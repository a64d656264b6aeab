import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import { constant, input } from "../../ops/graph/tensor.ts";
import { compile, evaluate } from "../../ops/runtime/program.ts";
import { prototypeUseInBatch } from "../model/slot_grouping.ts";
import { initialState } from "../run/initial_state.ts";
import { upload } from "../run/state.ts";
import { rateInputs, slotConStep } from "./step.ts";

gpuTest("slotConStep() reports the norms of all its parameters and gradients", function* () {
  const [B, S] = [2, 32];
  const views = {
    images: input("images", [2 * B, S, S, 3]),
    coords: input("coords", [2 * B, 4]),
    flips: input("flips", [2 * B]),
  };
  const step = slotConStep(views, rateInputs(), {
    ...{ arch: "resnet18", width: 4, outputStride: 8, dimHidden: 8, dimOut: 8, numPrototypes: 4 },
    ...{ teacherTemp: 0.07, studentTemp: 0.1, centerMomentum: 0.9, groupLossWeight: 0.5 },
    ...{ optimizer: "lars", weightDecay: 1e-5, momentum: 0.9 },
  });
  const values = initialState(step.state, 3);
  const state = yield* upload(step.state, values);
  const outputs = { ...step.metrics, ...Object.fromEntries(step.gradients) };
  const program = yield* compile({ label: "the step", updates: step.state.updates, outputs }, state);
  const result = yield* Effect.flatten(program.run({
    images: numbers(2 * B * S * S * 3),
    coords: Float32Array.from({ length: 8 * B }, (_, i) => i % 4 < 2 ? 0 : 1),
    flips: new Float32Array(2 * B),
    learningRate: Float32Array.of(0.1),
    teacherMomentum: Float32Array.of(0.99),
  }));
  const names = [...step.gradients.keys()];
  assert.ok(names.length > 60);
  const norm = (all: readonly Float32Array[]) => Math.hypot(...all.map((values) => Math.hypot(...values)));
  const expected = {
    param_norm: norm(names.map((name) => values.get(name)!.data)),
    grad_norm: norm(names.map((name) => result[name])),
  };
  for (const [name, value] of Object.entries(expected)) {
    assert.ok(
      value > 0 && Math.abs(result[name][0] / value - 1) < 1e-5,
      `${name} ${result[name][0]}, not ${value}`,
    );
  }
});

gpuTest(
  "prototypeUseInBatch() counts the prototypes that win somewhere and says how evenly they do",
  function* () {
    const [N, side, K] = [3, 4, 9];
    const scores = numbers(N * side * side * K);
    for (let i = 0; i < scores.length; i += K) scores[i + 5] = -2; // this prototype never wins
    const wins = new Float64Array(K);
    for (let i = 0; i < scores.length; i += K) {
      const values = scores.subarray(i, i + K);
      wins[values.indexOf(Math.max(...values))]++;
    }
    const shares = [...wins].filter((count) => count > 0).map((count) => count / (N * side * side));
    const use = prototypeUseInBatch(constant(scores, [N, side, side, K]), (x) => x);
    assert.equal((yield* evaluate(use.live))[0], shares.length);
    assert.ok(shares.length < K);
    const entropy = -shares.reduce((sum, share) => sum + share * Math.log(share), 0);
    assert.ok(Math.abs((yield* evaluate(use.entropy))[0] - entropy) < 1e-6);

    const collapsed = prototypeUseInBatch(
      constant(scores.map((_, i) => i % K === 2 ? 1 : 0), [N, side, side, K]),
      (x) => x,
    );
    assert.deepEqual([(yield* evaluate(collapsed.live))[0], (yield* evaluate(collapsed.entropy))[0]], [1, 0]);
  },
);
