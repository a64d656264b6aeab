import assert from "node:assert/strict";
import { add, exp, mul } from "../arithmetic.ts";
import { allGather, allReduceSum } from "../collective.ts";
import { input, type Tensor } from "../graph/tensor.ts";
import { matmul } from "../matmul.ts";
import { sum } from "../reduce.ts";
import { CPU, isState, training } from "./_test_training.ts";
import { reachable } from "./graph.ts";
import { lower } from "./lower.ts";
import { syncDepths } from "./sync_points.ts";

/** The sync points of a program: for each the kinds of its exchanges and the segments that need them. */
const pointsOf = (outputs: Readonly<Record<string, Tensor>>) =>
  lower({ label: "exchanges", outputs }, CPU, () => true).syncPoints
    .map(({ exchanges }) => exchanges.map(({ kind, segment }) => `${kind} for ${segment}`));

const [a, b, w] = ["a", "b", "w"].map((name) => input(name, [8, 8]));

Deno.test("syncDepths() counts the exchanges before a tensor; what follows an overlappable one comes last", () => {
  const first = allReduceSum(exp(a));
  const late = allReduceSum(exp(b), { overlappable: true });
  const second = allReduceSum(mul(first, a));
  const [end, other] = [add(late, 1), add(second, first)];
  const depths = syncDepths(reachable([end, other]));
  assert.deepEqual([a, first, second, other].map((x) => depths.get(x)), [0, 1, 2, 2]);
  assert.deepEqual([late, end].map((x) => depths.get(x)), [3, 3]);
});

Deno.test("planSyncPoints() coalesces exchanges that are ready together, and only those", () => {
  const [x, y] = [allReduceSum(matmul(a, w)), allGather(matmul(b, w), 2)];
  assert.deepEqual(pointsOf({ x, y }), [["sum for 1", "gather for 1"]]);
  const z = allReduceSum(mul(x, b));
  assert.deepEqual(pointsOf({ x, y, z }), [["sum for 1", "gather for 1"], ["sum for 2"]]);
});

Deno.test("planSyncPoints() sends overlappable results with the next blocking ones, and needs them where they are read", () => {
  const layers = [1, 2, 3].map((i) => input(`layer ${i}`, [8, 8]));
  const gradients: Tensor[] = [];
  let x = a;
  for (const layer of layers) {
    x = allReduceSum(matmul(x, layer));
    gradients.push(allReduceSum(matmul(x, w), { overlappable: true }));
  }
  const outputs = Object.fromEntries(gradients.map((gradient, i) => [`gradient ${i}`, sum(gradient)]));
  // The gradient of a layer travels with the exchange of the next one; all are read after the last point.
  assert.deepEqual(pointsOf(outputs), [
    ["sum for 1"],
    ["sum for 2", "sum for 4"],
    ["sum for 3", "sum for 4"],
    ["sum for 4"],
  ]);
});

Deno.test("sync points of training grow with its depth, not with its parameters", () => {
  for (const blocks of [2, 5]) {
    const { syncPoints, fused } = lower(training({ blocks, world: 2 }), CPU, isState);
    const exchanges = syncPoints.flatMap(({ exchanges }) => exchanges);
    // Statistics of each block in both directions, and the gradients of the first block.
    assert.equal(syncPoints.length, 2 * blocks + 1);
    // Each block has two gathers, a sum over ranks, and three gradients; the linear layer has one.
    assert.equal(exchanges.length, 6 * blocks + 1);
    assert.ok(fused.scheduled.length > exchanges.length);
    syncPoints.forEach(({ after, exchanges }, i) => {
      assert.ok(i === 0 || after >= syncPoints[i - 1].after);
      assert.ok(exchanges.every(({ segment }) => segment > i));
    });
  }
});
