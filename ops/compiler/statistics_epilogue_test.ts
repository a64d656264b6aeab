import assert from "node:assert/strict";
import { batchMoments } from "../batch_norm.ts";
import { conv2d } from "../conv2d.ts";
import { input, isOp, reshape, type Tensor } from "../graph/tensor.ts";
import { columnSums } from "../reduce.ts";
import { CPU } from "./_test_training.ts";
import { reachable } from "./graph.ts";
import { lower } from "./lower.ts";
import { statisticsEpilogues } from "./statistics_epilogue.ts";

const images = input("images", [4, 16, 16, 8]);
const convolved = conv2d(images, input("weights", [3, 3, 8, 24]), { stride: 2, pad: 1 });
const rows = reshape(convolved, [2, 128, 24]);

const requests = (result: Tensor, half: ReadonlySet<Tensor> = new Set()) =>
  statisticsEpilogues(reachable([result]).filter(isOp), half);

Deno.test("statisticsEpilogues() finds the op whose output batch statistics are taken of, behind a reshape", () => {
  const [[of, request], ...others] = requests(batchMoments(rows).values);
  assert.equal(of, convolved);
  assert.equal(request.of, rows);
  assert.deepEqual(request.sums.shape, [2, 2, 24]);
  assert.equal(others.length, 0);
});

Deno.test("statisticsEpilogues() leaves out other sums, counted rows, and values that are rounded when stored", () => {
  assert.equal(requests(columnSums([rows])).size, 0);
  const counted = batchMoments(reshape(convolved, [1, 256, 24]), input("count", [1], "u32"));
  assert.equal(requests(counted.values).size, 0);
  assert.equal(requests(batchMoments(rows).values, new Set([convolved])).size, 0);
});

Deno.test("a convolution takes the statistics in its epilogue where its output is one binding, else a pass reads it", () => {
  const graph = { label: "statistics", outputs: { moments: batchMoments(rows).values, convolved } };
  const labels = (maxBinding: number, precision?: "f16") =>
    lower({ ...graph, precision }, { ...CPU, maxBinding }, () => false).kernels.map(({ label }) => label);
  const whole = labels(2 ** 27);
  assert.ok(whole.includes("sumsOfMoments") && !whole.includes("columnSums"), `${whole}`);
  const sliced = labels(2 ** 14);
  assert.ok(!sliced.includes("sumsOfMoments") && sliced.includes("columnSums"), `${sliced}`);
});
