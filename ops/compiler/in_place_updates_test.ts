import assert from "node:assert/strict";
import { add, mul } from "../arithmetic.ts";
import { input, reshape, type Tensor } from "../graph/tensor.ts";
import { matmul } from "../matmul.ts";
import { sum } from "../reduce.ts";
import { slice, transpose } from "../slice.ts";
import { CPU } from "./_test_training.ts";
import { lower } from "./lower.ts";

/** Which states are updated in place, and which are copied. */
const updated = (
  updates: ReadonlyMap<Tensor, Tensor>,
  outputs: Readonly<Record<string, Tensor>> = {},
  buffers = 16,
) => {
  const traits = { ...CPU, maxStorageBuffers: buffers };
  const { inPlace, copies } = lower({ label: "updates", updates, outputs }, traits, () => true);
  return { inPlace: [...inPlace.values()], copied: copies.map(({ to }) => to) };
};

const [a, b] = ["a", "b"].map((name) => input(name, [4, 4]));

Deno.test("updatesInPlace() overwrites state that only its own update reads", () => {
  assert.deepEqual(updated(new Map([[a, add(a, b)], [b, mul(b, 2)]])), { inPlace: [a, b], copied: [] });
  assert.deepEqual(updated(new Map([[a, a], [b, reshape(b, [4, 4])]])), { inPlace: [], copied: [] });
});

Deno.test("updatesInPlace() copies where a later kernel still reads the current value", () => {
  const before = sum(mul(a, a)); // kernels run in the order of creation
  const next = add(a, 1);
  assert.deepEqual(updated(new Map([[a, next]]), { before, after: sum(next) }).inPlace, [a]);
  assert.deepEqual(updated(new Map([[a, next]]), { after: sum(mul(next, a)) }).copied, [a]);
});

Deno.test("updatesInPlace() copies where the kernel reads the current value at another index than it writes", () => {
  for (const moved of [transpose(a, [1, 0]), reshape(add(reshape(slice(a, 0, 0, 1), [4]), a), [4, 4])]) {
    assert.deepEqual(updated(new Map([[a, add(moved, 1)]])), { inPlace: [], copied: [a] });
  }
});

Deno.test("updatesInPlace() copies what no elementwise kernel computes, and all but one state of the same value", () => {
  assert.deepEqual(updated(new Map([[a, matmul(a, b)]])).copied, [a]);
  assert.deepEqual(updated(new Map([[a, b]])).copied, [a]);
  const shared = mul(a, b);
  assert.deepEqual(updated(new Map([[a, shared], [b, shared]])), { inPlace: [a], copied: [b] });
});

Deno.test("updatesInPlace() swaps two states in one kernel, or with a copy where they have two", () => {
  const swap = new Map([[a, add(b, 0)], [b, add(a, 0)]]);
  assert.deepEqual(updated(swap), { inPlace: [a, b], copied: [] });
  assert.deepEqual(updated(swap, {}, 3), { inPlace: [b], copied: [a] });
});
