import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import { constant } from "../../ops/graph/tensor.ts";
import { compile, evaluate } from "../../ops/runtime/program.ts";
import { tinyInputs, tinyStep } from "../_test_kit.ts";
import { prototypeUseInBatch } from "../model/slot_grouping.ts";
import { initialState } from "../run/initial_state.ts";
import { upload } from "../run/state.ts";

gpuTest("slotConStep() reports the norms of all its parameters and gradients", function* () {
  const [B, S] = [2, 32];
  const step = tinyStep(B, S);
  const values = initialState(step.state, 3);
  const state = yield* upload(step.state, values);
  const outputs = { ...step.metrics, ...Object.fromEntries(step.gradients) };
  const program = yield* compile({ label: "the step", updates: step.state.updates, outputs }, state);
  const result = yield* Effect.flatten(program.run(tinyInputs(B, S)));
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
