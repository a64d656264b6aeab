import assert from "node:assert/strict";
import { policyRate } from "./rate_policy.ts";

// Whole recorded runs are compared in pipeline/verify/segmentation_rates_recording_test.ts; these are the rules' edges.

Deno.test("policyRate() multiplies at the milestone itself, and twice where two coincide", () => {
  const policy = { schedule: "step", baseLr: 1, milestones: [3, 5, 5], decay: 0.5 } as const;
  assert.deepEqual([0, 2, 3, 4, 5].map((i) => policyRate(i, policy)), [1, 1, 0.5, 0.5, 0.125]);
});

Deno.test("policyRate() begins at the base rate and stays above the floor of a power", () => {
  const policy = { schedule: "poly", baseLr: 0.01, minLr: 1e-4, power: 0.9, iterations: 10 } as const;
  assert.equal(policyRate(0, policy), 0.01);
  const last = policyRate(9, policy);
  assert.ok(last > 1e-4 && last < 0.002);
});
