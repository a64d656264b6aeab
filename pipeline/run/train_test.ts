import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger, Schema, Stream } from "effect";
import { testFolder } from "../../data/_test_kit.ts";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import { mul, sub } from "../../ops/arithmetic.ts";
import { input } from "../../ops/graph/tensor.ts";
import { mean } from "../../ops/reduce.ts";
import { programSet } from "../../ops/runtime/program_set.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { optimize } from "../optim/optimize.ts";
import type { StepBatch } from "./batch.ts";
import { latestCheckpoint, loadCheckpoint, type RunMeta, type Task } from "./checkpoint_file.ts";
import { initialState } from "./initial_state.ts";
import { atLeast, type ConfigOf, DATA_DIR, integer, RUN_OPTIONS, taskOptions } from "./options.ts";
import { autoResumed, changedOptions, differenceNotes, resumedValues } from "./resume.ts";
import { upload } from "./state.ts";
import { train, type Validation } from "./train.ts";

// A task as small as one can be: a weight that brings images of two sizes to a mean of 1.

const TABLE = { dataDir: DATA_DIR, batchSize: integer(4, atLeast(1), "images a step"), ...RUN_OPTIONS };
type Config = ConfigOf<typeof TABLE>;
const OPTIONS = taskOptions<Config, never>({
  task: "toy",
  table: TABLE,
  presets: {},
  contradiction: () => undefined,
});
interface Meta extends RunMeta {
  readonly config: Config;
  readonly score?: number;
}
const TOY: Task<Meta> = {
  name: OPTIONS.task,
  meta: Schema.Struct({ step: Schema.Int, config: OPTIONS.schema, score: Schema.optionalKey(Schema.Finite) }),
};

/** The step of images of side `side`. */
const stepOf = ({ batchSize }: Config, side: number) => {
  const state = new StateBuilder();
  const weight = state.declare("head.weight", {
    ...{ role: "trained", shape: [1], storage: "same", init: { kind: "normal", deviation: 1 } },
  });
  const error = sub(mul(weight, input("images", [batchSize, side, side])), 1);
  const loss = mean(mul(error, error));
  const step = optimize({ state, loss, metrics: { loss } }, input("rate", []), {
    ...{ optimizer: "sgd", weightDecay: 0, momentum: 0.9 },
  });
  return { state, graph: { label: "the step", updates: state.updates, outputs: step.metrics } };
};

interface Batch extends StepBatch {
  readonly side: number;
  readonly pixels: Float32Array;
}
const batchOf = ({ batchSize, seed }: Config, step: number): Batch => {
  const side = 2 + step % 2;
  const times = { begin: 0, decoded: 0, packed: 0 };
  const pixels = numbers(batchSize * side * side, seed + step);
  return { step, epoch: 0, images: [`${step}`], badImages: 0, worker: 0, times, side, pixels };
};

/** A validation every two steps, which gives these scores in turn. */
const scripted = (scores: readonly number[], best: number | null = null) => {
  const asked: number[] = [];
  const validation: Validation<never> = {
    best,
    due: (done) => done % 2 === 0,
    score: (done) =>
      Effect.sync(() => {
        const score = scores[asked.length];
        asked.push(done);
        return { score, metrics: { val_score: score }, images: new Map() };
      }),
  };
  return { asked, validation };
};

const runToy = Effect.fnUntraced(function* (
  config: Config,
  lastStep: number,
  validation?: Validation<never>,
) {
  const { state } = stepOf(config, 2);
  const own = yield* autoResumed(TOY, config);
  const start = own === null ? { step: 0, values: initialState(state, config.seed), notes: [] } : {
    step: own.meta.step,
    values: yield* resumedValues(own, state),
    notes: differenceNotes(own.file, changedOptions(OPTIONS, own.meta.config, config)),
  };
  const buffers = yield* upload(state, start.values);
  const programs = yield* programSet(buffers, 2);
  const programOf = (side: number) => programs.get(`${side}`, () => stepOf(config, side).graph);
  return yield* train({
    task: TOY,
    config,
    images: 100,
    start,
    stepsPerEpoch: 25,
    lastStep,
    state,
    buffers,
    program: yield* programOf(2),
    memoryBesides: {},
    batches: Stream.iterate(start.step, (step) => step + 1).pipe(
      Stream.map((step) => batchOf(config, step)),
    ),
    step: ({ side, pixels }: Batch) =>
      Effect.map(programOf(side), (program) => ({
        program,
        uploads: { images: pixels, rate: Float32Array.of(0.1) },
        reported: { lr: 0.1 },
      })),
    remedy: "lower the rate",
    meta: (step, score) => ({ step, config, ...score === null ? {} : { score } }),
    validation,
    observer: null,
  });
}, Effect.scoped);

gpuTest(
  "train() trains any task: with its own options and metadata, and programs for several shapes over one state",
  function* () {
    const folder = yield* testFolder;
    const said: string[] = [];
    const quietly = Effect.provide(
      Logger.layer([Logger.make(({ message }) => void said.push(`${message}`))]),
    );
    const config = yield* OPTIONS.configure(null);
    const [straight, stopped] = ["straight", "stopped"].map((name) => ({
      ...config,
      outputDir: join(folder, name),
      autoResume: true,
    }));
    const linesOf = ({ outputDir }: Config) =>
      Deno.readTextFileSync(join(outputDir, "metrics.jsonl")).trim().split("\n").map((line) => {
        const { images_per_second: _, ...rest } = JSON.parse(line);
        return rest;
      });

    assert.equal(yield* runToy(straight, 8).pipe(quietly), 8);
    const lines = linesOf(straight);
    assert.equal(lines.length, 8);
    assert.deepEqual(Object.keys(lines[0]), [
      ...["step", "epoch", "loss", "param_norm", "grad_norm", "lr", "bad_images"],
    ]);
    assert.ok(lines[7].loss < lines[0].loss);

    yield* runToy(stopped, 3).pipe(quietly);
    yield* runToy(stopped, 8).pipe(quietly);
    assert.deepEqual(linesOf(stopped), lines);
    const [one, other] = [
      yield* latestCheckpoint(straight.outputDir, TOY),
      yield* latestCheckpoint(stopped.outputDir),
    ];
    assert.deepEqual(one!.tensors, other!.tensors);
    assert.deepEqual([other!.task, one!.meta], ["toy", { step: 8, config: straight }]);

    yield* runToy({ ...stopped, seed: 5, printFreq: 2 }, 9).pipe(quietly);
    assert.match(said.join("\n"), /This run differs from the one in ".*step_000008.*": --seed 0 is 5 now$/m);
  },
);

gpuTest("train() reports validations, and keeps the state of the best one beside the newest", function* () {
  const folder = yield* testFolder;
  const config = { ...yield* OPTIONS.configure(null), outputDir: folder, autoResume: true, keep: 1 };
  const quietly = Effect.provide(Logger.layer([]));
  const best = loadCheckpoint(join(folder, "checkpoints", "best.safetensors"), TOY);
  const scores = () =>
    Deno.readTextFileSync(join(folder, "metrics.jsonl")).trim().split("\n").map((line) =>
      JSON.parse(line).val_score
    );

  const first = scripted([1, 3, 2]);
  yield* runToy(config, 6, first.validation).pipe(quietly);
  assert.deepEqual(first.asked, [2, 4, 6]);
  assert.deepEqual(scores(), [undefined, 1, undefined, 3, undefined, 2]);
  assert.deepEqual((yield* best).meta, { step: 4, config, score: 3 });
  assert.equal((yield* latestCheckpoint(folder, TOY))!.meta.step, 6);

  yield* runToy(config, 8, scripted([2.5], 3).validation).pipe(quietly);
  assert.equal((yield* best).meta.step, 4);
  yield* runToy(config, 10, scripted([4], 3).validation).pipe(quietly);
  assert.deepEqual((yield* best).tensors, (yield* latestCheckpoint(folder, TOY))!.tensors);
});
