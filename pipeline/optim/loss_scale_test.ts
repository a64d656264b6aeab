import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import { add, mul } from "../../ops/arithmetic.ts";
import { input } from "../../ops/graph/tensor.ts";
import { sum } from "../../ops/reduce.ts";
import { compile } from "../../ops/runtime/program.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import { download, upload } from "../run/state.ts";
import type { StateTensor } from "../run/state_layout.ts";
import { optimize } from "./optimize.ts";
import type { OptimizerName } from "./optimizers.ts";

const [ROWS, COLUMNS] = [6, 5];

/** A loss Σ w·x + Σ b·y whose gradients are x and y: what they are is up to the test. */
const scripted = (optimizer: OptimizerName) => {
  const state = new StateBuilder();
  const parameter = { role: "trained", init: { kind: "normal", deviation: 1 } } as const;
  const w = state.declare("encoder_q.w", { ...parameter, shape: [ROWS, COLUMNS], storage: "linear" });
  const b = state.declare("encoder_q.b", { ...parameter, shape: [COLUMNS], storage: "same" });
  const loss = add(sum(mul(w, input("x", w.shape))), sum(mul(b, input("y", b.shape))));
  return optimize({ state, loss, metrics: {} }, input("learningRate", []), {
    optimizer,
    precision: "f16",
    weightDecay: 0.1,
    momentum: 0.9,
  });
};

/** PyTorch's rule (`_amp_update_scale_`), in plain words. */
const after = (scale: number, tracker: number, finite: boolean): [number, number] => {
  if (!finite) return [scale * 0.5, 0];
  return tracker + 1 === 2000 ? [scale * 2, 0] : [scale, tracker + 1];
};

for (const optimizer of ["sgd", "lars"] as const) {
  gpuTest(
    `loss scaling follows the rule of the published runs, and a skipped step of ${optimizer} changes nothing else`,
    function* () {
      const { state, metrics } = scripted(optimizer);
      const start = new Map<string, StateTensor>(initialState(state, 1));
      start.set("scaler.growth_tracker", { shape: [], data: Float32Array.of(1997) });
      const buffers = yield* upload(state, start);
      const program = yield* compile(
        { label: "scripted", updates: state.updates, outputs: metrics, precision: "f16" },
        buffers,
      );
      // Finite gradients, and what goes wrong in one place of one of them; 1e35 only overflows once it is scaled.
      const script = [0, 0, 0, 0, Infinity, 0, NaN, -Infinity, 0, 1e35, 0];
      let [scale, tracker, skipped] = [65536, 1997, 0];
      let before = yield* download(state, buffers);
      for (const [step, wrong] of script.entries()) {
        const x = numbers(ROWS * COLUMNS, step + 2), y = numbers(COLUMNS, step + 3);
        if (wrong !== 0) (step % 2 === 0 ? x : y)[3] = wrong;
        const result = yield* Effect.flatten(program.run({
          ...{ x, y, learningRate: Float32Array.of(0.1) },
        }));
        const now = yield* download(state, buffers);
        if (wrong !== 0) skipped++;
        [scale, tracker] = after(scale, tracker, wrong === 0);
        assert.equal(now.get("scaler.scale")!.data[0], scale, `scale after step ${step}`);
        assert.equal(now.get("scaler.growth_tracker")!.data[0], tracker, `good steps after step ${step}`);
        assert.equal(now.get("scaler.skipped")!.data[0], skipped, `skipped steps after step ${step}`);
        assert.equal(result.loss_scale[0], scale);
        assert.equal(result.skipped_steps[0], skipped);
        for (const [name, { data }] of now) {
          if (name.startsWith("scaler.")) continue;
          if (wrong !== 0) {
            assert.deepEqual(data, before.get(name)!.data, `${name} after the skipped step ${step}`);
          } else assert.notDeepEqual(data, before.get(name)!.data, `${name} after step ${step}`);
        }
        before = now;
      }
      assert.deepEqual([scale, tracker, skipped], [65536 * 2 / 16, 1, 4]);
    },
  );
}

gpuTest("a step moves parameters by the gradients of the loss, whatever its scale", function* () {
  const moved: Float32Array[] = [];
  for (const scale of [1, 2 ** 20]) {
    const { state } = scripted("sgd");
    const start = new Map<string, StateTensor>(initialState(state, 1));
    start.set("scaler.scale", { shape: [], data: Float32Array.of(scale) });
    const buffers = yield* upload(state, start);
    const program = yield* compile({ label: "scripted", updates: state.updates, outputs: {} }, buffers);
    yield* Effect.flatten(program.run({
      ...{ x: numbers(ROWS * COLUMNS), y: numbers(COLUMNS) },
      ...{ learningRate: Float32Array.of(0.1) },
    }));
    moved.push((yield* download(state, buffers)).get("encoder_q.w")!.data);
  }
  assert.deepEqual(moved[0], moved[1]);
});
