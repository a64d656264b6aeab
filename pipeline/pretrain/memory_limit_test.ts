import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest } from "../../ops/_test_kit.ts";
import type { MemoryPlan } from "../../ops/compiler/memory_plan.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { compile } from "../../ops/runtime/program.ts";
import { tinyInputs, tinyStep } from "../_test_kit.ts";
import { acrossRanks } from "../ranks/sync.ts";
import { initialState } from "../run/initial_state.ts";
import { snapshot, upload } from "../run/state.ts";

const [B, S] = [4, 64];

/** A limit that leaves this share of what comes and goes. */
const limitFor = ({ groups, total }: MemoryPlan, share: number) => {
  const always = groups.state + groups.batch + groups.constants;
  return Math.floor(always + share * (total - always));
};

/** Three steps of one of `world` ranks: the metrics of the last one, the state after it, and what the program is. */
const train = Effect.fnUntraced(
  function* (rank: number, world: number, precision: "f32" | "f16", memoryLimit?: number) {
    const step = tinyStep(B, S, { precision, sync: acrossRanks(rank, world) });
    const state = yield* upload(step.state, initialState(step.state, 3));
    const graph = {
      label: "the step",
      updates: step.state.updates,
      outputs: step.metrics,
      precision,
      memoryLimit,
    };
    const program = yield* compile(graph, state);
    let metrics: Readonly<Record<string, Float32Array>> = {};
    for (let i = 0; i < 3; i++) {
      metrics = yield* yield* program.run(tinyInputs(B, S, 10 * i + rank));
    }
    return { metrics, state: yield* yield* snapshot(step.state, state), program };
  },
  Effect.scoped,
);

/** Trains with all memory and within shares of it, and fails unless both give the same bits. */
const assertSameBits = Effect.fnUntraced(
  function* (world: number, precision: "f32" | "f16", shares: readonly number[]) {
    const usual = yield* onRanks(world, (rank) => train(rank, world, precision));
    const [{ program: { plan, dispatches, syncPoints } }] = usual;
    for (const share of shares) {
      const limit = limitFor(plan, share);
      const tight = yield* onRanks(world, (rank) => train(rank, world, precision, limit));
      for (const [rank, { program, metrics, state }] of tight.entries()) {
        assert.ok(program.plan.total <= limit, `${program.plan.total} bytes within ${limit}`);
        assert.ok(program.dispatches > dispatches && program.recomputed.tensors > 0);
        assert.equal(program.syncPoints, syncPoints);
        assert.deepEqual(metrics, usual[rank].metrics);
        assert.deepEqual(state, usual[rank].state);
      }
    }
  },
);

gpuTest(
  "a step that computes again what there is no memory for gives the same bits, within the limit",
  function* () {
    yield* assertSameBits(1, "f32", [0.8, 0.6]);
  },
);

gpuTest("so does a step of several ranks, with as many stops as before", function* () {
  yield* assertSameBits(2, "f32", [0.6]);
});

gpuTest("so does a step in half precision", function* () {
  yield* assertSameBits(1, "f16", [0.75]);
});
