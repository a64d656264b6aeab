import assert from "node:assert/strict";
import { Effect } from "effect";
import { configure } from "./config.ts";
import { PRETRAIN_STEP } from "./planned_step.ts";
import { planStep } from "../run/step_plan.ts";

const demo = Effect.runSync(configure("demo"));
const published = { ...Effect.runSync(configure("coco-800")), batchSize: 64 };
const traits = {
  cpu: true,
  maxStorageBuffers: 16,
  maxBinding: 2 ** 27,
  shaderF16: true,
  minSubgroupSize: 0,
};
const limits = { maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: 2 ** 27 };

Deno.test("planStep() accounts for all memory of a step without an adapter", () => {
  const { groups, peakBytes, reservedBytes, refusal } = planStep(PRETRAIN_STEP, demo, traits, limits);
  assert.equal(Object.values(groups).reduce((sum, bytes) => sum + bytes), peakBytes);
  assert.ok(reservedBytes >= peakBytes && reservedBytes < 1.2 * peakBytes);
  assert.equal(refusal, null);
});

Deno.test("planStep() names the tensor that an adapter cannot hold", () => {
  const { largest, refusal } = planStep(PRETRAIN_STEP, demo, traits, {
    ...limits,
    maxBufferSize: 2 ** 23 - 4,
  });
  assert.deepEqual(largest[0], { tensor: "pixels", bytes: 2 ** 23, count: 1 });
  assert.match(refusal!, /pixels needs 8\.0 MiB: its largest buffer is/);
});

Deno.test("planStep() plans with the kernels that tuning has found", () => {
  const direct = (_: string, variants: readonly string[]) =>
    variants.find((name) => !name.startsWith("winograd"));
  const scratch = [
    planStep(PRETRAIN_STEP, demo, traits, limits),
    planStep(PRETRAIN_STEP, demo, traits, limits, direct),
  ].map(({ groups }) => groups.scratch);
  assert.ok(scratch[0] > scratch[1], `${scratch}`); // winograd's transforms are kept there
});

Deno.test("planStep() plans half the activations in half precision, on adapters that have it", () => {
  const wide = { ...traits, maxBinding: 2 ** 30 };
  const wideLimits = { ...limits, maxStorageBufferBindingSize: 2 ** 30 };
  const [full, half] = (["f32", "f16"] as const).map((precision) =>
    planStep(PRETRAIN_STEP, { ...published, precision }, wide, wideLimits)
  );
  // What is left in f32: sums over rows, slots and their gradients.
  assert.ok(half.groups.activations < 0.51 * full.groups.activations);
  assert.ok(half.peakBytes < 0.54 * full.peakBytes, `${half.peakBytes} of ${full.peakBytes} bytes`);
  assert.equal(half.refusal, null);

  const { refusal } = planStep(
    PRETRAIN_STEP,
    { ...demo, precision: "f16" },
    { ...traits, shaderF16: false },
    limits,
  );
  assert.equal(
    refusal,
    "Cannot run the step in half precision: this adapter has no shader-f16. Use --precision f32",
  );
});

Deno.test("planStep() stays within a memory limit by computing twice, or says the least that it takes", () => {
  const wide = { ...traits, cpu: false, maxBinding: 2 ** 30 };
  const wideLimits = { ...limits, maxStorageBufferBindingSize: 2 ** 30 };
  const plan = (memoryLimit: string | null) =>
    planStep(PRETRAIN_STEP, { ...published, memoryLimit }, wide, wideLimits);
  const usual = plan(null);
  assert.deepEqual(usual.recomputed, { tensors: 0, bytes: 0, work: 0 });
  assert.ok(usual.reservedBytes < 1.02 * usual.peakBytes, `${usual.reservedBytes} for ${usual.peakBytes}`);

  const [, least] = plan("1GiB").refusal!.match(/within 1\.00 GiB of device memory: it takes ([\d.]+) GiB/)!;
  assert.ok(Number(least) < 4.1, least);
  for (const [gib, mostWork] of [[8, 0.05], [Number(least), 0.3]]) {
    const { peakBytes, reservedBytes, besides, recomputed, kernels, refusal } = plan(`${gib}GiB`);
    assert.equal(refusal, null);
    assert.ok(reservedBytes + besides["slot maps"] <= gib * 2 ** 30);
    assert.ok(reservedBytes < 1.1 * peakBytes, `${reservedBytes} reserved for ${peakBytes}`);
    assert.ok(recomputed.tensors > 0 && kernels >= usual.kernels + recomputed.tensors);
    assert.ok(recomputed.work < mostWork, `${recomputed.work}`);
  }
});
