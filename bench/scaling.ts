/**
 * What a picture costs in a whole SlotCon step, by how many there are in a batch and how large their views are:
 * `deno task bench:scaling`. The network is the demo's, so that small batches do not fill a device; all cases take turns.
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
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { upload } from "../pipeline/run/state.ts";
import { table } from "../pipeline/run/table.ts";
import { median, timed } from "./_timing.ts";

const BATCHES = [4, 8, 16, 32], SIZES = [64, 96, 128, 192];
const SIZE = 96, BATCH = 8; // of the other table
const ROUNDS = 7;

interface Case {
  readonly batchSize: number;
  readonly imageSize: number;
}

const cases: readonly Case[] = [
  ...BATCHES.map((batchSize) => ({ batchSize, imageSize: SIZE })),
  ...SIZES.filter((size) => size !== SIZE).map((imageSize) => ({ batchSize: BATCH, imageSize })),
];

/** A step of such a batch, from the upload to the metrics. */
const prepared = Effect.fnUntraced(function* ({ batchSize, imageSize }: Case) {
  const config = { ...yield* configure("demo"), batchSize, imageSize };
  const { packing, state, graph } = stepGraph(config, (yield* Gpu).traits);
  const program = yield* compile(graph, yield* upload(state, initialState(state, 0)));
  const samples = Array.from({ length: batchSize }, (_, i) => {
    const side = 2 * imageSize; // like photographs, larger than their views
    const picture = { width: side, height: side, rgb: drawScene(randomStream(1, i), side).rgb };
    return { picture, draw: drawTwoCrops(randomStream(2, i), picture, config) };
  });
  const rates = { learningRate: Float32Array.of(0.01), teacherMomentum: Float32Array.of(0.99) };
  const step = Effect.asVoid(Effect.flatten(program.run({ ...packBatch(samples, packing), ...rates })));
  yield* step; // drivers compile in the first one
  return { step, bytes: program.plan.total };
});

const measure = Effect.gen(function* () {
  const steps = yield* Effect.forEach(cases, prepared);
  const milliseconds = cases.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { step }] of steps.entries()) milliseconds[i].push(yield* timed(step));
  }
  const { report: { description: adapter } } = yield* Gpu;
  const results = cases.map((each, i) => ({
    ...each,
    bytes: steps[i].bytes,
    median: median(milliseconds[i]),
    least: Math.min(...milliseconds[i]),
    milliseconds: milliseconds[i],
  }));
  return { adapter, results };
});

const { adapter, results } = await measure.pipe(Effect.scoped, Effect.provide(native), Effect.runPromise);

/** Rows whose costs stand beside the first one's. What else a machine does can only add to a time: the least ones count. */
const rows = (of: typeof results, names: (of: Case) => string, work: (of: Case) => number) => {
  const cost = (each: (typeof results)[number]) => each.least / work(each);
  return of.map((each) => [
    names(each),
    `${each.median.toFixed(0)} ms`,
    `${each.least.toFixed(0)} ms`,
    `${(each.least / each.batchSize).toFixed(1)} ms`,
    `× ${(cost(each) / cost(of[0])).toFixed(2)}`,
    `${(each.bytes / 2 ** 20).toFixed(0)} MiB`,
  ]);
};
const columns = ["median step", "fastest", "a picture of it", "beside the first", "memory"];
console.log(`${adapter}: the demo's network, ${ROUNDS} steps each\n`);
console.log(table([
  [`pictures of ${SIZE}²`, ...columns],
  ...rows(
    results.filter(({ imageSize }) => imageSize === SIZE),
    ({ batchSize }) => String(batchSize),
    ({ batchSize }) => batchSize,
  ),
]));
console.log(`\n${
  table([
    [`${BATCH} pictures of`, ...columns.with(3, "a pixel beside the first")],
    ...rows(
      results.filter(({ batchSize }) => batchSize === BATCH).sort((a, b) => a.imageSize - b.imageSize),
      ({ imageSize }) => `${imageSize}²`,
      ({ batchSize, imageSize }) => batchSize * imageSize ** 2,
    ),
  ])
}`);
Deno.mkdirSync("runs/bench", { recursive: true });
Deno.writeTextFileSync("runs/bench/scaling.json", `${JSON.stringify({ adapter, results }, null, 2)}\n`);
