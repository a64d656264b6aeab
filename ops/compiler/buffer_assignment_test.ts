import assert from "node:assert/strict";
import { add } from "../arithmetic.ts";
import { input, reshape } from "../graph/tensor.ts";
import { assignBuffers } from "./buffer_assignment.ts";

const state = input("state", [2, 8]);
const next = add(state, 1);
const activation = add(state, 2);

const assignment = () =>
  assignBuffers({ inPlace: new Map([[next, state]]), half: new Set([activation]), narrowing: "native" });

Deno.test("assignBuffers() gives reshapes the memory of their source, and updates in place that of the state", () => {
  const { operandOf, storages } = assignment();
  const [whole, folded] = [operandOf(next), operandOf(reshape(state, [16]))];
  assert.equal(whole.storage, folded.storage);
  assert.deepEqual([whole.shape, folded.shape], [[2, 8], [16]]);
  assert.deepEqual(storages, [{ name: "state", bytes: 64, isScratch: false }]);
});

Deno.test("assignBuffers() gives scratch and recomputed tensors memory of their own, and stores half in two bytes", () => {
  const { operandOf, scratch, reassign, storages } = assignment();
  const first = operandOf(activation);
  assert.equal(operandOf(activation).storage, first.storage);
  const areas = [scratch([3]), scratch([3], "u32")];
  reassign(activation);
  const second = operandOf(reshape(activation, [16]));
  assert.equal(new Set([first, ...areas, second].map(({ storage }) => storage)).size, 4);
  assert.deepEqual([first.dtype, second.dtype, ...areas.map(({ dtype }) => dtype)], [
    "f16",
    "f16",
    "f32",
    "u32",
  ]);
  assert.deepEqual(storages.map(({ bytes, isScratch }) => [bytes, isScratch]), [
    ...[[32, false], [12, true], [12, true], [32, false]],
  ]);
});
