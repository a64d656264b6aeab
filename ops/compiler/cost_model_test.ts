import assert from "node:assert/strict";
import { bytesOf } from "../graph/kernel.ts";
import { CPU, GPU, isState, training } from "./_test_training.ts";
import { scheduledOps } from "./cost_model.ts";
import { isExchange } from "./graph.ts";
import { lower } from "./lower.ts";

Deno.test("scheduledOps() describes groups by what they read, store and cost, and says what cannot be recomputed", () => {
  const { fused, inPlace, operandOf } = lower(training({ world: 2 }), CPU, isState);
  const scratchBytes = new Map([[fused.groups[0][0], 64]]);
  const [onCpu, onGpu] = [CPU, GPU].map((traits) =>
    scheduledOps(fused.groups, { ...fused, inPlace, operandOf, scratchBytes, traits })
  );
  assert.equal(onCpu[0].scratch, 64);
  fused.groups.forEach((members, i) => {
    const { reads, bytes, cost, repeatable, isResult } = onCpu[i];
    const [first] = members;
    assert.ok(reads.every((read) => read < i), `group ${i} reads ${reads}`);
    const stored = members.filter((x) => !inPlace.has(x));
    assert.equal(bytes, stored.reduce((sum, x) => sum + bytesOf(operandOf(x)), 0));
    assert.equal(isResult, members.some((x) => fused.kept.has(x)));
    if (isExchange(first) || isResult) assert.ok(!repeatable);
    assert.ok(isExchange(first) ? cost === 0 : cost > onGpu[i].cost && onGpu[i].cost > 0);
  });
  const costs = new Map(fused.groups.map(([x], i) => [x.source.op.name, onCpu[i].cost]));
  assert.ok(costs.get("conv2d")! > 3 * costs.get("add")!);
  assert.ok(onCpu.some(({ repeatable }) => repeatable));
});
