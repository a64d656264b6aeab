import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import { add, mul, sub } from "../arithmetic.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { input, type Tensor } from "../graph/tensor.ts";
import { sum } from "../reduce.ts";
import { fuse, type FusedGraph } from "./lower.ts";

const traits: AdapterTraits = {
  ...{ cpu: true, maxStorageBuffers: 8, maxBinding: 2 ** 27, shaderF16: true, minSubgroupSize: 0 },
};

const fused = (
  updates: ReadonlyMap<Tensor, Tensor>,
  outputs: Readonly<Record<string, Tensor>> = {},
  buffers = 8,
) => fuse({ label: "updates", updates, outputs }, { ...traits, maxStorageBuffers: buffers });

/** Fails where a group runs before something that a member reads. */
const assertOrdered = ({ groups, readsOf }: FusedGraph) => {
  const groupOf = new Map(groups.flatMap((members, i) => members.map((x): [Tensor, number] => [x, i])));
  groups.forEach((members, i) => {
    for (const read of members.flatMap(readsOf)) {
      assert.ok((groupOf.get(read) ?? -1) <= i, `group ${i} reads a result of group ${groupOf.get(read)}`);
    }
  });
};

/** A parameter and its momentum after a step. */
const momentum = (name: string, shape: readonly number[]) => {
  const [p, v, g] = ["p", "v", "g"].map((kind) => input(`${kind} of ${name}`, shape));
  const nextV = add(mul(0.9, v), g);
  return new Map([[v, nextV], [p, sub(p, nextV)]]);
};

Deno.test("fusedHorizontally() computes parameter and momentum together, and small ones of one shape", () => {
  const updates = new Map(["a", "b"].flatMap((name) => [...momentum(name, [6])]));
  const other = momentum("c", [8]);
  const { groups } = fused(new Map([...updates, ...other]), {}, 24);
  assert.deepEqual(groups.map((members) => members.length), [4, 2]);
});

Deno.test("fusedHorizontally() puts no more into a kernel than a shader can bind", () => {
  const updates = new Map(["a", "b", "c", "d"].flatMap((name) => [...momentum(name, [6])]));
  for (const buffers of [5, 8, 10, 16]) {
    const graph = fused(updates, {}, buffers);
    for (const members of graph.groups) {
      const read = new Set(
        members.flatMap(graph.readsOf).filter((x) => !members.some((member) => member === x)),
      );
      assert.ok(read.size + members.length <= buffers, `${read.size} + ${members.length} of ${buffers}`);
    }
  }
});

Deno.test("fusedHorizontally() computes large tensors together with their neighbours only", () => {
  const shape = [2 ** 16 + 1];
  const pair = [...momentum("a", shape)];
  assert.equal(fused(new Map(pair), {}, 24).groups.length, 1);
  const [v, p] = pair;
  const between = new Map([v, ...momentum("b", [6]), p]);
  assert.equal(fused(between, {}, 24).groups.length, 2); // in the schedule they are neighbours still
  const q = input("q", shape);
  const [, nextV] = v;
  const separated = fused(new Map([v, [q, mul(q, sum(nextV))]]), {}, 24);
  assert.ok(separated.groups.every((members) => members.length === 1));
});

Deno.test("fusedHorizontally() runs groups after what they read and before what reads them, whatever the updates", () => {
  for (let seed = 1; seed <= 100; seed++) {
    const values = numbers(400, seed).map((value) => (value + 1) / 2);
    let next = 0;
    const below = (limit: number) => Math.floor(values[next++ % values.length] * limit);
    const states = Array.from({ length: 24 }, (_, i) => input(`state ${i}`, [below(2) + 4]));
    const updates = new Map<Tensor, Tensor>();
    const outputs: Record<string, Tensor> = {};
    const scalars: Tensor[] = [];
    for (const state of states) {
      // Reads itself, another state or its next value of the same shape, and sums of next values.
      const others = [...states, ...updates.values()].filter((x) => x.shape[0] === state.shape[0]);
      let value = add(state, others[below(others.length)]);
      if (scalars.length > 0 && below(3) === 0) value = mul(value, scalars[below(scalars.length)]);
      updates.set(state, value);
      if (below(3) === 0) scalars.push(outputs[`sum ${updates.size}`] = sum(value));
    }
    for (const buffers of [8, 12, 24]) {
      const graph = fused(updates, outputs, buffers);
      assertOrdered(graph);
      assert.equal(graph.groups.flat().length, graph.scheduled.length);
    }
  }
});

Deno.test("fusedHorizontally() lets a group wait for what it reads, even if one of its shape had to run earlier", () => {
  // Two updates fill a kernel; the first is read at once, so the second is computed with it, early.
  const states = ["a", "b", "c"].map((name) => input(name, [6]));
  const [a, b, c] = states;
  const nextA = add(a, input("da", [6]));
  const early = sum(nextA);
  const nextB = add(b, input("db", [6]));
  const nextC = mul(c, mul(early, sum(input("x", [9]))));
  assertOrdered(fused(new Map([[a, nextA], [b, nextB], [c, nextC]]), { early }, 6));
});
