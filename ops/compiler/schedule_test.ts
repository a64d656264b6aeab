import assert from "node:assert/strict";
import { exp } from "../arithmetic.ts";
import { input, isOp, type OpTensor } from "../graph/tensor.ts";
import { isRecomputed, scheduleSteps } from "./schedule.ts";

const tensors = [0, 1, 2, 3].map((i) => exp(input(`${i}`, [1]))).filter(isOp);
const groups: readonly (readonly OpTensor[])[] = tensors.map((x) => [x]);

Deno.test("scheduleSteps() computes groups in order, and repeats for the next one that is new", () => {
  assert.deepEqual(scheduleSteps(groups), groups.map(([x]) => ({ members: [x], scheduledFor: x })));
  const steps = scheduleSteps(groups, [0, 1, 2, 0, 1, 3]);
  assert.deepEqual(steps.map(({ members: [x] }) => tensors.indexOf(x)), [0, 1, 2, 0, 1, 3]);
  assert.deepEqual(steps.map(({ scheduledFor }) => tensors.indexOf(scheduledFor)), [0, 1, 2, 3, 3, 3]);
  assert.deepEqual(steps.map(isRecomputed), [false, false, false, true, true, false]);
});
