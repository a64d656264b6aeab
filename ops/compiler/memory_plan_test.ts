import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import type { Binding, Kernel, Operand } from "../graph/kernel.ts";
import { type Lifetime, planMemory } from "./memory_plan.ts";

const KERNELS = 400;

/** Uses of random sizes and lives, and kernels that read some of what lives with them and write another. */
const example = (seed: number) => {
  const random = numbers(4000, seed).map((x) => (x + 1) / 2);
  let next = 0;
  const uses = Array.from({ length: 300 }, (_, storage): Lifetime => {
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
    const alive = uses.filter(({ first, last }) => first <= at && at <= last);
    const some = alive.filter(() => random[next++ % random.length] < 0.2);
    return {
      ...{ label: "test", code: "", sizes: null, workgroups: [1, 1, 1] },
      bindings: some.map(({ storage }, i) => binding(storage, i === 0 ? "write" : "read")),
    };
  });
  return { uses, kernels };
};

Deno.test("planMemory() gives everything a place of its own for life, apart from what is read or written with it", () => {
  for (let seed = 1; seed <= 10; seed++) {
    const { uses, kernels } = example(seed);
    const plan = planMemory(uses, kernels);
    const home = new Map(
      plan.slots.flatMap((slot) => slot.allocations.map((place) => [place.storage, { slot, ...place }])),
    );
    assert.equal(home.size, uses.length);
    for (const use of uses) {
      const { slot, offset } = home.get(use.storage)!;
      assert.ok(offset % 256 === 0 && offset + use.bytes <= slot.bytes);
      for (const other of uses.slice(0, use.storage)) {
        const place = home.get(other.storage)!;
        if (place.slot !== slot || other.last < use.first || use.last < other.first) continue;
        assert.ok(
          place.offset + other.bytes <= offset || offset + use.bytes <= place.offset,
          `seed ${seed}: ${use.name} and ${other.name} lie over each other`,
        );
      }
    }
    for (const { bindings } of kernels) {
      const [written, ...read] = bindings.map(({ operand }) => home.get(operand.storage)!.slot);
      assert.ok(!read.includes(written), `seed ${seed}: a kernel reads and writes one buffer`);
    }
    assert.ok(plan.needed <= plan.total && plan.total < 1.25 * plan.needed, `${plan.total / plan.needed}`);
  }
});
