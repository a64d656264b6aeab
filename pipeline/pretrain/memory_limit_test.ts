import assert from "node:assert/strict";
import { Effect } from "effect";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import type { MemoryPlan } from "../../ops/compiler/memory_plan.ts";
import { input } from "../../ops/graph/tensor.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { compile } from "../../ops/runtime/program.ts";
import { acrossRanks } from "../ranks/sync.ts";
import { initialState } from "../run/initial_state.ts";
import { snapshot, upload } from "../run/state.ts";
import { rateInputs, slotConStep, type StepOptions } from "./step.ts";

const [B, S] = [4, 64];

const options: StepOptions = {
  ...{ arch: "resnet18", width: 8, outputStride: 8, dimHidden: 32, dimOut: 16, numPrototypes: 4 },
  ...{ teacherTemp: 0.07, studentTemp: 0.1, centerMomentum: 0.9, groupLossWeight: 0.5 },
  ...{ optimizer: "lars", weightDecay: 1e-5, momentum: 0.9, precision: "f32" },
};

/** A limit that leaves this share of what comes and goes. */
const limitFor = ({ groups, total }: MemoryPlan, share: number) => {
  const always = groups.state + groups.batch + groups.constants;
  return Math.floor(always + share * (total - always));
};

/** Three steps of one of `world` ranks: the metrics of the last one, the state after it, and what the program is. */
const train = Effect.fnUntraced(
  function* (rank: number, world: number, precision: "f32" | "f16", memoryLimit?: number) {
    const views = {
      images: input("images", [2 * B, S, S, 3]),
      coords: input("coords", [2 * B, 4]),
      flips: input("flips", [2 * B]),
    };
    const step = slotConStep(views, rateInputs(), { ...options, precision, sync: acrossRanks(rank, world) });
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
      metrics = yield* yield* program.run({
        images: numbers(2 * B * S * S * 3, 10 * i + rank),
        coords: Float32Array.from({ length: 8 * B }, (_, at) => at % 4 < 2 ? 0 : 1),
        flips: new Float32Array(2 * B),
        learningRate: Float32Array.of(0.1),
        teacherMomentum: Float32Array.of(0.99),
      });
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
