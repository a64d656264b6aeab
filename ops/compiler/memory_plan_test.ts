import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import type { Binding, Kernel, Operand } from "../graph/kernel.ts";
import { allocateInto, type Lifetime, planMemory, type Slot } from "./memory_plan.ts";

const KERNELS = 400;

/** Tensors of random sizes and lifetimes, and kernels that read some of what lives with them and write another. */
const example = (seed: number) => {
  const random = numbers(4000, seed).map((x) => (x + 1) / 2);
  let next = 0;
  const lifetimes = Array.from({ length: 300 }, (_, storage): Lifetime => {
    const first = Math.floor(random[next++] * KERNELS * 0.95);
    const last = Math.min(KERNELS - 1, first + Math.floor(random[next++] ** 4 * KERNELS));
    const bytes = 4 * Math.ceil(random[next++] ** 3 * 2 ** 18);
    return { storage, name: `${storage}`, bytes, group: "activations", first, last };
  });
  const binding = (storage: number, access: Binding["access"]): Binding => ({
    operand: { storage, shape: [1], dtype: "f32", offset: 0 } as Partial<Operand> as Operand,
    access,
  });
  const kernels = Array.from({ length: KERNELS }, (_, at): Kernel => {
    const alive = lifetimes.filter(({ first, last }) => first <= at && at <= last);
    const some = alive.filter(() => random[next++ % random.length] < 0.2);
    return {
      ...{ label: "test", code: "", sizes: null, workgroups: [1, 1, 1] },
      bindings: some.map(({ storage }, i) => binding(storage, i === 0 ? "write" : "read")),
    };
  });
  return { lifetimes, kernels };
};

/**
 * Fails unless all tensors have memory of their own for life, in other slots than what is read or written with them.
 */
const assertValid = (
  slots: readonly Slot[],
  { lifetimes, kernels }: ReturnType<typeof example>,
  what: string,
) => {
  const home = new Map(
    slots.flatMap((slot) =>
      slot.allocations.map((allocation) => [allocation.storage, { slot, ...allocation }])
    ),
  );
  assert.equal(home.size, lifetimes.length);
  for (const tensor of lifetimes) {
    const { slot, offset } = home.get(tensor.storage)!;
    assert.ok(offset % 256 === 0 && offset + tensor.bytes <= slot.bytes);
    for (const other of lifetimes.slice(0, tensor.storage)) {
      const beside = home.get(other.storage)!;
      if (beside.slot !== slot || other.last < tensor.first || tensor.last < other.first) continue;
      assert.ok(
        beside.offset + other.bytes <= offset || offset + tensor.bytes <= beside.offset,
        `${what}: ${tensor.name} and ${other.name} overlap`,
      );
    }
  }
  for (const { bindings } of kernels) {
    const [written, ...read] = bindings.map(({ operand }) => home.get(operand.storage)!.slot);
    assert.ok(!read.includes(written), `${what}: a kernel reads and writes one buffer`);
  }
};

Deno.test("planMemory() gives everything a place of its own for life, apart from what is read or written with it", () => {
  for (let seed = 1; seed <= 10; seed++) {
    const memory = example(seed);
    const plan = planMemory(memory.lifetimes, memory.kernels);
    assertValid(plan.slots, memory, `seed ${seed}`);
    assert.ok(plan.needed <= plan.total && plan.total < 1.25 * plan.needed, `${plan.total / plan.needed}`);
  }
});

Deno.test("allocateInto() places a plan into its own slots as it was, into larger ones as validly, and says where it cannot", () => {
  for (let seed = 1; seed <= 10; seed++) {
    const memory = example(seed);
    const plan = planMemory(memory.lifetimes, memory.kernels);
    const sizes = plan.slots.map(({ bytes }) => bytes);
    assert.deepEqual(allocateInto(sizes, plan, memory.kernels), plan.slots);
    assert.equal(allocateInto([sizes[0] - 1, ...sizes.slice(1)], plan, memory.kernels), null);

    const bins = [...sizes.map((bytes) => 2 * bytes), 1024];
    const slots = allocateInto(bins, plan, memory.kernels)!;
    assert.deepEqual(slots.map(({ bytes }) => bytes), bins);
    assertValid(slots, memory, `seed ${seed}`);
  }
});
