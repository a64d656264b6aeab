import assert from "node:assert/strict";
import { compareStepTensor, summariseSteps } from "./step_errors.ts";
import { notComputed } from "./tensor_errors.ts";

const values = (...numbers: number[]) => Float32Array.from(numbers);
const holds = (name: string, got: Float32Array, want: Float32Array, start: Float32Array | null = null) =>
  summariseSteps([compareStepTensor(name, got, want, start)])[0].holds;

Deno.test("compareStepTensor() accepts nothing but zeros where zeros were recorded", () => {
  const gradient = "step0/expect/grad/encoder_q.layer1.0.conv1.weight";
  assert.ok(holds(gradient, values(0, -0), values(0, 0)));
  assert.ok(!holds(gradient, values(0, 1e-30), values(0, 0)));
});

Deno.test("compareStepTensor() measures state by its change", () => {
  const state = "step0/expect/after/encoder_q.conv1.weight";
  assert.ok(holds(state, values(1.0101), values(1.0101), values(1)));
  assert.ok(!holds(state, values(1.01), values(1.0101), values(1))); // 1 % of the change
  assert.ok(holds(state.replace("conv1.weight", "mlp.3.bias"), values(1.01005), values(1.0101), values(1)));
});

Deno.test("summariseSteps() lets no good tensor hide one that is no number, or one that nobody computed", () => {
  const loss = (rank: number, got: number) =>
    compareStepTensor(`step0/rank${rank}/expect/loss`, values(got), values(4), null);
  const rows = summariseSteps([loss(0, 4), loss(1, NaN), loss(2, 4), notComputed("step9/expect/loss")]);
  assert.deepEqual(
    rows.map(({ group, tensors, worst, holds, note }) => ({ group, tensors, worst, holds, note })),
    [
      { group: "losses", tensors: 3, worst: Infinity, holds: false, note: "step0/rank1/expect/loss" },
      {
        group: "recorded but not computed",
        tensors: 1,
        worst: Infinity,
        holds: false,
        note: "step9/expect/loss",
      },
    ],
  );
});
