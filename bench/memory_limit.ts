/**
 * What a memory limit costs, `deno task bench:memory`: of a published run's step by the plan, and of the demo's by running
 * it. All limits of the demo's take turns.
 */
import { Effect } from "effect";
import { drawScene } from "../data/datasets/draw_scene.ts";
import { randomStream } from "../data/random/random.ts";
import { native } from "../ops/runtime/adapters.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { compile } from "../ops/runtime/program.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { drawTwoCrops } from "../pipeline/pretrain/draws.ts";
import { packBatch } from "../pipeline/pretrain/pack.ts";
import { PRETRAIN_STEP } from "../pipeline/pretrain/planned_step.ts";
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { planStep } from "../pipeline/run/step_plan.ts";
import { writtenBytes } from "../pipeline/run/bytes.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { upload } from "../pipeline/run/state.ts";
import { table } from "../pipeline/run/table.ts";
import { median, timed } from "./_timing.ts";

const PUBLISHED = ["none", "12GiB", "10GiB", "8GiB", "6GiB", "5GiB", "4.5GiB", "1GiB"]; // the last is too little
const BATCH = 64; // of the published run's step
const SHARES = [1, 0.8, 0.6]; // of what the demo's step takes without a limit
const ROUNDS = 9;

const planned = Effect.gen(function* () {
  const { traits, report: { limits } } = yield* Gpu;
  const config = { ...yield* configure("coco-800"), batchSize: BATCH };
  return PUBLISHED.map((limit) => {
    const start = performance.now();
    const plan = planStep(
      PRETRAIN_STEP,
      { ...config, memoryLimit: limit === "none" ? null : limit },
      traits,
      limits,
    );
    return { limit, ...plan, milliseconds: performance.now() - start };
  });
});

/** The demo's step within a limit, from the upload to the metrics. */
const prepared = Effect.fnUntraced(function* (memoryLimit: number | undefined) {
  const config = yield* configure("demo");
  const { packing, state, graph } = stepGraph(config, (yield* Gpu).traits);
  const program = yield* compile({ ...graph, memoryLimit }, yield* upload(state, initialState(state, 0)));
  const samples = Array.from({ length: config.batchSize }, (_, i) => {
    const side = 2 * config.imageSize;
    const picture = { width: side, height: side, rgb: drawScene(randomStream(1, i), side).rgb };
    return { picture, draw: drawTwoCrops(randomStream(2, i), picture, config) };
  });
  const rates = { learningRate: Float32Array.of(0.01), teacherMomentum: Float32Array.of(0.99) };
  const step = Effect.asVoid(Effect.flatten(program.run({ ...packBatch(samples, packing), ...rates })));
  yield* step; // drivers compile in the first one
  return { program, step };
});

const measured = Effect.gen(function* () {
  const usual = yield* prepared(undefined);
  const { total } = usual.program.plan;
  const steps = [usual, ...yield* Effect.forEach(SHARES.slice(1), (share) => prepared(share * total))];
  const milliseconds = steps.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { step }] of steps.entries()) milliseconds[i].push(yield* timed(step));
  }
  return steps.map(({ program: { plan, recomputed, dispatches } }, i) => ({
    ...{ share: SHARES[i], total: plan.total, recomputed, dispatches },
    ...{
      median: median(milliseconds[i]),
      least: Math.min(...milliseconds[i]),
      milliseconds: milliseconds[i],
    },
  }));
});

const { adapter, plans, runs } = await Effect.gen(function* () {
  const { report: { description: adapter } } = yield* Gpu;
  return { adapter, plans: yield* planned, runs: yield* measured };
}).pipe(Effect.scoped, Effect.provide(native), Effect.runPromise);

const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
console.log(`${adapter}\n`);
console.log(table([
  [
    `coco-800, batch ${BATCH}: limit`,
    "in use at once",
    "reserved",
    "computed twice",
    "more work",
    "planned in",
  ],
  ...plans.map(({ limit, peakBytes, reservedBytes, recomputed, milliseconds, refusal }) => [
    refusal === null ? limit : `${limit} (refused)`,
    writtenBytes(peakBytes),
    writtenBytes(reservedBytes),
    writtenBytes(recomputed.bytes),
    percent(recomputed.work),
    `${(milliseconds / 1000).toFixed(1)} s`,
  ]),
]));
console.log(`\n${
  table([
    [
      "the demo's step: limit",
      "reserved",
      "computed twice",
      "more work",
      "median",
      "fastest",
      "beside the first",
    ],
    ...runs.map(({ share, total, recomputed, median, least }) => [
      share === 1 ? "none" : percent(share),
      writtenBytes(total),
      writtenBytes(recomputed.bytes),
      percent(recomputed.work),
      `${median.toFixed(0)} ms`,
      `${least.toFixed(0)} ms`,
      `× ${(least / runs[0].least).toFixed(2)}`,
    ]),
  ])
}`);
Deno.mkdirSync("runs/bench", { recursive: true });
Deno.writeTextFileSync(
  "runs/bench/memory_limit.json",
  `${JSON.stringify({ adapter, plans, runs }, null, 2)}\n`,
);
