import assert from "node:assert/strict";
import { add, mul } from "../arithmetic.ts";
import { bytesOf } from "../graph/kernel.ts";
import { input, storageOf, type Tensor } from "../graph/tensor.ts";
import { CPU, GPU, isState, training } from "./_test_training.ts";
import { resultsOf } from "./graph.ts";
import { lower, type Lowered } from "./lower.ts";

/**
 * Follows a program through its memory and fails where a kernel or an exchange reads what is not there: what has not
 * been written yet, what another tensor has overwritten, or a value of another tensor than those that it is computed
 * from.
 */
const follow = (lowered: Lowered) => {
  const { kernels, produces, syncPoints, plan, lifetimes, fused, operandOf } = lowered;
  const region = new Map(
    plan.slots.flatMap(({ allocations }, slot) =>
      allocations.map((
        { storage, offset },
      ) => [storage, { slot, offset, end: offset + lifetimes[storage].bytes }])
    ),
  );
  const holds = new Map<number, Tensor | null>(); // for each storage in memory the tensor whose kernels have written it
  for (const x of [...lowered.inputs, ...lowered.constants]) holds.set(operandOf(x).storage, x);
  const write = (storage: number, x: Tensor | null) => {
    const own = region.get(storage);
    for (const other of own === undefined ? [] : [...holds.keys()]) {
      const place = region.get(other);
      if (place?.slot === own?.slot && place!.offset < own!.end && own!.offset < place!.end) {
        holds.delete(other);
      }
    }
    holds.set(storage, x);
  };
  const exchange = (after: number) => {
    syncPoints.forEach((point) => {
      if (point.after !== after) return;
      for (const { from } of point.exchanges) {
        assert.ok(holds.has(from.storage), `nothing to exchange after ${after}`);
      }
    });
    for (const { to, segment } of syncPoints.flatMap(({ exchanges }) => exchanges)) {
      if (syncPoints[segment - 1].after === after) write(to.storage, null);
    }
  };
  kernels.forEach(({ label, bindings, workgroups }, i) => {
    exchange(i);
    const x = produces[i];
    const members = fused.groups.find(([first]) => first === x)!;
    const sources = new Set<Tensor>([x, ...members.flatMap(fused.readsOf)]);
    const reads = bindings.filter(({ access }) => access === "read").map(({ operand }) => operand);
    if ("indirect" in workgroups) reads.push(workgroups.indirect);
    for (const { storage } of reads) {
      const what = `kernel ${i}, ${label}, reads storage ${storage} (${lifetimes[storage].name})`;
      assert.ok(holds.has(storage), `${what}, which holds nothing`);
      const held = holds.get(storage)!;
      assert.ok(
        held === null || sources.has(held),
        `${what} of tensor ${held?.id}, which it is not computed from`,
      );
    }
    const writes = bindings.filter(({ access }) => access === "write").map(({ operand }) => operand);
    for (const { storage } of writes) {
      const { slot } = region.get(storage) ?? {};
      const isShared = slot !== undefined && reads.some((read) => region.get(read.storage)?.slot === slot);
      assert.ok(!isShared, `kernel ${i}, ${label}, reads and writes buffer ${slot}`);
      write(storage, members.find((member) => operandOf(member).storage === storage) ?? x);
    }
  });
  exchange(kernels.length);
  for (const x of resultsOf(fused.graph)) {
    assert.ok(holds.has(operandOf(x).storage), `result ${x.id} is not there`);
  }
};

const limited = (lowered: Lowered, share: number) => {
  const { groups, total } = lowered.plan;
  const always = groups.state + groups.batch + groups.constants;
  return Math.floor(always + share * (total - always));
};

Deno.test("lower() reads only what is in memory, for any adapter, precision and number of ranks", () => {
  for (const traits of [CPU, GPU, { ...GPU, maxStorageBuffers: 8 }, { ...CPU, maxBinding: 2 ** 13 }]) {
    for (const precision of ["f32", "f16"] as const) {
      for (const world of [1, 2]) {
        const lowered = lower(training({ precision, world }), traits, isState);
        follow(lowered);
        assert.equal(lowered.syncPoints.length > 0, world > 1);
      }
    }
  }
});

Deno.test("lower() stays within a memory limit, and recomputes then what it reads again", () => {
  for (const world of [1, 2]) {
    const graph = training({ blocks: 8, world });
    const usual = lower(graph, CPU, isState);
    for (const share of [0.8, 0.6]) {
      const lowered = lower({ ...graph, memoryLimit: limited(usual, share) }, CPU, isState);
      assert.ok(lowered.plan.total <= limited(usual, share));
      assert.ok(lowered.recomputed.tensors > 0 && lowered.recomputed.work > 0);
      assert.ok(lowered.kernels.length > usual.kernels.length);
      assert.equal(lowered.syncPoints.length, usual.syncPoints.length);
      assert.ok(lowered.scheduledFor.some((x, i) => x !== lowered.produces[i]));
      follow(lowered);
    }
    const least = lower({ ...graph, memoryLimit: 1 }, CPU, isState);
    assert.ok(least.plan.total < usual.plan.total);
    const taken = { ...graph, memoryLimit: usual.plan.total + 1000, memoryTaken: 1000 };
    assert.equal(lower(taken, CPU, isState).recomputed.tensors, 0);
  }
});

Deno.test("lower() keeps a value of each input, constant and result, and drops what nothing uses", () => {
  const [x, y] = [input("x", [64]), input("y", [64])];
  const result = add(mul(x, x), 1);
  const unused = mul(y, y);
  const { inputs, kernels, plan, operandOf } = lower(
    { label: "square", outputs: { result } },
    CPU,
    () => false,
  );
  assert.deepEqual(inputs, [x]);
  assert.equal(kernels.length, 1);
  assert.equal(plan.groups.batch, 256);
  assert.equal(plan.groups.activations, bytesOf(operandOf(result)));
  assert.equal(storageOf(unused), unused);
  assert.throws(
    () => lower({ label: "twice", outputs: { sum: add(x, input("x", [64])) } }, CPU, () => false),
    /two inputs of twice share a name: x/,
  );
});
