/** Measures what exchanges between ranks cost, alone and as part of a training step. */
import { Effect } from "effect";
import { Collective, gatherTexts } from "../../ops/runtime/collective.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { acrossRanks, singleProcess, type Sync } from "../../pipeline/ranks/sync.ts";
import { initialState } from "../../pipeline/run/initial_state.ts";
import type { RunConfig } from "../../pipeline/run/options.ts";
import { upload } from "../../pipeline/run/state.ts";
import type { TaskStep } from "../../pipeline/run/step_plan.ts";

export interface RankSpeed {
  /** The machine and the adapter of each rank. */
  readonly ranks: readonly { readonly host: string; readonly adapter: string }[];
  /** Seconds of an all-reduce of 512 numbers (2 KiB), and of 25 million (95 MiB). */
  readonly small: number;
  readonly large: number;
  /** A training step of the run; null where measuring it would take too long. */
  readonly step: StepSpeed | null;
}

export interface StepSpeed {
  readonly seconds: number;
  /** The part of these that exchanges take: by how much a step without them is faster. */
  readonly syncSeconds: number;
  readonly stops: number;
  /** Bytes that each rank sends. */
  readonly exchangedBytes: number;
}

const SMALL = 512, LARGE = 25_000_000;

/** A step that takes more bytes of device memory than this is not measured on a CPU. */
const MODEST = 2 ** 30;

/** To be called by all ranks at the same time. Each gets the same result, except that the seconds of the step are its own. */
export const rankSpeed = Effect.fn("rankSpeed")(function* <C extends RunConfig>(
  of: TaskStep<C>,
  config: C,
  reservedBytes: number,
) {
  const { report } = yield* Gpu;
  const { rank, world, allReduceSum } = yield* Collective;
  const told = yield* gatherTexts(JSON.stringify({ host: Deno.hostname(), adapter: report.description }));
  const sum = (count: number) => allReduceSum(new Float32Array(count));
  const small = yield* median(200, sum(SMALL));
  const large = yield* median(5, sum(LARGE));
  const step = report.software && reservedBytes > MODEST
    ? null
    : yield* stepSpeed(of, { ...config, batchSize: config.batchSize / world }, acrossRanks(rank, world));
  return { ranks: told.map((text) => JSON.parse(text)), small, large, step } satisfies RankSpeed;
}, Effect.scoped);

/** The median of the seconds that an effect takes in `times` runs after one for warming up. */
const median = Effect.fnUntraced(function* <A, E, R>(times: number, effect: Effect.Effect<A, E, R>) {
  const seconds: number[] = [];
  for (let i = 0; i <= times; i++) {
    const start = performance.now();
    yield* effect;
    if (i > 0) seconds.push((performance.now() - start) / 1000);
  }
  return seconds.sort((a, b) => a - b)[Math.floor(times / 2)];
});

const stepSpeed = Effect.fnUntraced(function* <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  sync: Sync,
) {
  const single = yield* timedStep(step, config, singleProcess);
  const together = yield* timedStep(step, config, sync);
  const { syncPoints, exchangedBytes } = together.program;
  return {
    seconds: together.seconds,
    syncSeconds: Math.max(0, together.seconds - single.seconds),
    stops: syncPoints,
    exchangedBytes,
  };
});

/** The seconds of a step on black images; the content of images does not change the time. */
const timedStep = Effect.fnUntraced(function* <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  sync: Sync,
) {
  const gpu = yield* Gpu;
  const { barrier } = yield* Collective;
  const { state, graph } = step.build(config, gpu.traits, sync);
  const program = yield* compile(graph, yield* upload(state, initialState(state, config.seed)));
  const inputs = step.sample(config, gpu.traits);
  yield* barrier;
  const seconds = yield* median(3, Effect.flatten(program.run(inputs)));
  return { program, seconds };
}, Effect.scoped);
