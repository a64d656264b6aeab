import assert from "node:assert/strict";
import type { Binding, Kernel, Operand } from "../graph/kernel.ts";
import { kernelUses, lifetimesOf, withExchanges } from "./lifetimes.ts";

const operand = (storage: number): Operand => ({ storage, shape: [1], dtype: "f32", offset: 0 });
const kernel = (reads: readonly number[], writes: readonly number[], indirect?: number): Kernel => ({
  ...{ label: "test", code: "", sizes: null },
  workgroups: indirect === undefined ? [1, 1, 1] : { indirect: operand(indirect) },
  bindings: [
    ...reads.map((storage): Binding => ({ operand: operand(storage), access: "read" })),
    ...writes.map((storage): Binding => ({ operand: operand(storage), access: "write" })),
  ],
});

Deno.test("kernelUses() spans from the first kernel that binds a storage to the last, counts of workgroups included", () => {
  const uses = kernelUses([kernel([], [0, 1]), kernel([0], [2]), kernel([2], [3], 1)]);
  assert.deepEqual(Object.fromEntries(uses), {
    ...{
      0: { first: 0, last: 1 },
      1: { first: 0, last: 2 },
      2: { first: 1, last: 2 },
      3: { first: 2, last: 2 },
    },
  });
});

Deno.test("withExchanges() keeps what is sent until its sync point, and what is received from the one before its segment", () => {
  // Storage 0 is sent at the first point and received as 1 at the second, behind which it is read.
  const kernels = [
    kernel([], [0]),
    kernel([], [2]),
    kernel([2], [3]),
    kernel([], [4]),
    kernel([1, 3, 4], [5]),
  ];
  const exchange = (from: number, to: number, segment: number) => (
    { kind: "sum" as const, from: operand(from), to: operand(to), segment }
  );
  const syncPoints = [
    { after: 2, exchanges: [exchange(0, 1, 2)] },
    { after: 3, exchanges: [exchange(3, 6, 2)] },
  ];
  const uses = withExchanges(kernelUses(kernels), syncPoints);
  assert.deepEqual(uses.get(0), { first: 0, last: 1 });
  assert.deepEqual(uses.get(1), { first: 3, last: 4 });
  assert.deepEqual(uses.get(6), { first: 3, last: 3 }); // received and never read
});

Deno.test("lifetimesOf() keeps results until the end, and knows what always exists", () => {
  const storages = ["state", "x", "y", "scratch"].map((name) => ({
    name,
    bytes: 4,
    isScratch: name === "scratch",
  }));
  const uses = kernelUses([kernel([0], [1, 3]), kernel([1, 3], [2])]);
  const lifetimes = lifetimesOf(storages, uses, {
    ...{ resident: new Map([[0, "state" as const]]), results: new Set([2]), kernels: 2 },
  });
  assert.deepEqual(
    lifetimes.map(({ name, group, first, last }) => [name, group, first, last]),
    [["state", "state", 0, 0], ["x", "activations", 0, 1], ["y", "activations", 1, 2], [
      "scratch",
      "scratch",
      0,
      1,
    ]],
  );
});
