import { Console, Effect, Stream } from "effect";
import { Command, Flag } from "effect/cli";
import type { Choice } from "../ops/compiler/kernel_selection.ts";
import { lower } from "../ops/compiler/lower.ts";
import { tune as tuneAll, type Tuned } from "../ops/runtime/autotune.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { singleProcess } from "../pipeline/ranks/sync.ts";
import type { RunConfig } from "../pipeline/run/options.ts";
import type { TaskStep } from "../pipeline/run/step_plan.ts";
import { table } from "../pipeline/run/table.ts";
import { readTuned, tunedFile, writeTuned } from "../pipeline/run/tuned_kernels.ts";
import { configFrom, flagsOf, type Parsed } from "./flags/config_flags.ts";
import { UsageError } from "./flags/usage_error.ts";
import { type CliTask, PRETRAINING, SEGMENTATION } from "./flags/tasks.ts";
import { doingNow, heardGpu } from "./terminal/doing.ts";

/** The command `name` that tunes the step of a task. */
const tuneOf = <Name extends string, C extends RunConfig, Preset extends string>(
  name: Name,
  { options, step }: CliTask<C, Preset>,
) =>
  Command.make(
    name,
    {
      run: flagsOf(options),
      again: Flag.Boolean("again").pipe(
        Flag.withDescription("try what is known already once more, too"),
        Flag.withDefault(false),
      ),
    },
    Effect.fn(function* ({ again, run }) {
      const config = yield* configFrom(options)(run as unknown as Parsed<C, Preset>); // TypeScript cannot infer this for any C
      yield* Effect.provide(tuneStep(step, config, again), heardGpu(rankGpu(config)));
    }, Effect.scoped),
  );

const segmentationTune = tuneOf("segmentation", SEGMENTATION).pipe(
  Command.withDescription(
    "The same for fine-tuning on semantic segmentation. Takes the options of transfer segmentation.",
  ),
  Command.withShortDescription("The same for fine-tuning on semantic segmentation"),
  Command.withExamples([
    { command: "slotcon tune segmentation --recipe ade20k", description: "For a published recipe" },
  ]),
);

export const tune = tuneOf("tune", PRETRAINING).pipe(
  Command.withDescription(
    "Try the kernels that a run's step could use on this adapter, one after the other, and remember the fastest of each " +
      "kind in .cache/kernels. Every later command uses them; results change by rounding alone. Takes the options of " +
      "pretrain. What is known already is not tried again; it may be stopped at any time and goes on where it was.",
  ),
  Command.withShortDescription("Find the fastest kernels for this adapter"),
  Command.withExamples([
    { command: "slotcon tune --preset coco-800", description: "For the published run on COCO" },
    { command: "slotcon tune --config run.yaml --again", description: "Once more, after a new driver" },
    { command: "slotcon tune segmentation --recipe voc", description: "For fine-tuning" },
  ]),
  Command.withSubcommands([segmentationTune]),
);

const tuneStep = Effect.fnUntraced(function* <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  again: boolean,
) {
  const { report, traits } = yield* Gpu;
  const share = { ...config, batchSize: config.batchSize / config.ranks };
  const { graph, state } = step.build(share, traits, singleProcess);
  const isState = (name: string) => state.declared.has(name);
  const { choices } = lower(graph, traits, isState);
  let known = readTuned(report);
  const isKnown = ({ work, variants }: Choice) =>
    variants.every((variant) => known[work]?.milliseconds[variant] !== undefined);
  const open = choices.filter((choice) => again || !isKnown(choice));
  yield* Console.log(
    `${report.description}: ${choices.length} kinds of work with several ways to do them, ${
      choices.length - open.length
    } of them known`,
  );
  yield* doingNow("Trying kernels");
  const results: Tuned[] = [];
  const keep = Effect.fnUntraced(function* (result: Tuned) {
    results.push(result);
    yield* Console.log(lineOf(result));
    if (!result.tuned) return;
    known = { ...known, [result.work]: { chosen: result.chosen, milliseconds: result.milliseconds } };
    yield* writeTuned(report, known).pipe(
      Effect.mapError(({ message }) =>
        new UsageError({
          subject: "tune",
          reason: `cannot keep its findings in "${tunedFile(report)}": ${message}`,
        })
      ),
    );
  });
  yield* Stream.runForEach(tuneAll(graph, isState, open), keep);
  if (results.length > 0) yield* Console.log(`\n${summary(results)}\n${tunedFile(report)}`);
});

const lineOf = ({ work, variants, chosen, milliseconds }: Tuned): string => {
  const written = (name: string) => {
    const time = milliseconds[name];
    return `${name === chosen ? "» " : ""}${name}: ${
      time === null ? "refused" : `${time.toPrecision(3)} ms`
    }`;
  };
  return `${work}\n    ${variants.map(written).join(", ")}`;
};

/** For each op, the time of the guessed kernels beside that of the tuned ones. */
const summary = (results: readonly Tuned[]): string => {
  const sum = (of: readonly Tuned[], variant: (result: Tuned) => string) =>
    of.reduce((total, result) => total + (result.milliseconds[variant(result)] ?? 0), 0);
  const rows = [...Map.groupBy(results, ({ work }) => work.split(" ", 1)[0])].map(([op, of]) => {
    const [guessed, found] = [sum(of, ({ variants }) => variants[0]), sum(of, ({ chosen }) => chosen)];
    return [
      op,
      String(of.length),
      guessed.toPrecision(3),
      found.toPrecision(3),
      (guessed / found).toFixed(2),
    ];
  });
  return table([["once each", "kinds", "guessed, ms", "tuned, ms", "times as fast"], ...rows]);
};
