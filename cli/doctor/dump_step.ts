/** Dumps the step of a run, for the adapter at hand or for traits of one that is not. */
import { Effect, Option } from "effect";
import { type Command, Flag } from "effect/cli";
import { type DumpedProgram, dumpProgram } from "../../ops/compiler/dump.ts";
import { type Choices, GUESSED, TunedChoices } from "../../ops/compiler/kernel_selection.ts";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { rankGpu } from "../../pipeline/ranks/device.ts";
import { acrossRanks } from "../../pipeline/ranks/sync.ts";
import { writtenBytes } from "../../pipeline/run/bytes.ts";
import { makeDumpFolder, writeDump } from "../../pipeline/run/dump_program.ts";
import type { RunConfig } from "../../pipeline/run/options.ts";
import { limitedStep, type TaskStep } from "../../pipeline/run/step_plan.ts";
import { UsageError } from "../flags/usage_error.ts";
import { parseTraits, TRAITS_SYNTAX } from "./traits.ts";

/** Where to dump a step, and what. */
export interface StepDump {
  readonly folder: string;
  /** Traits to dump it for; those of the adapter at hand, with its tuned kernels, if null. */
  readonly traits: AdapterTraits | null;
  /** Also dumps the kernels that tuning could choose instead. */
  readonly everyVariant: boolean;
}

/** The flags of `slotcon doctor` that ask for a dump. */
export const dumpFlags = {
  dumpProgram: Flag.String("dump-program").pipe(
    Flag.withMetavar("DIR"),
    Flag.withDescription(
      "instead of looking at the machine, write the program of the run's step into this new or empty folder: its " +
        "graph, the kernels in order, the memory plan, every shader in WGSL, and each dispatch in numbers (kernels.json)",
    ),
    Flag.optional,
  ),
  traits: Flag.String("traits").pipe(
    Flag.withMetavar("TRAITS"),
    Flag.withDescription(
      `with --dump-program: as an adapter would get it that need not be there, ${TRAITS_SYNTAX} ` +
        "(default: the adapter at hand, with its tuned kernels)",
    ),
    Flag.filterMap(parseTraits, () => TRAITS_SYNTAX),
    Flag.optional,
  ),
  everyVariant: Flag.Boolean("every-variant").pipe(
    Flag.withDescription("with --dump-program: also the kernels that tuning could choose instead"),
    Flag.withDefault(false),
  ),
};

/** The dump that the flags ask for, or null. Fails with a `UsageError` where one of them needs another. */
export const dumpOf = (
  { dumpProgram, traits, everyVariant }: Command.Command.Config.Infer<typeof dumpFlags>,
): Effect.Effect<StepDump | null, UsageError> => {
  if (Option.isSome(dumpProgram)) {
    return Effect.succeed({ folder: dumpProgram.value, traits: Option.getOrNull(traits), everyVariant });
  }
  if (Option.isNone(traits) && !everyVariant) return Effect.succeed(null);
  const subject = everyVariant ? "--every-variant" : "--traits";
  return Effect.fail(new UsageError({ subject, reason: "this needs --dump-program" }));
};

/**
 * Dumps the step of the first rank of a run; returns a sentence about it. Fails with a `DumpError` where the folder is
 * not empty or cannot be written, and where it needs an adapter, as `rankGpu` does.
 */
export const dumpStep = Effect.fn("dumpStep")(function* <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  { folder, ...dump }: StepDump,
) {
  yield* makeDumpFolder(folder);
  const target = dump.traits === null
    ? yield* Effect.provide(adapterAtHand, rankGpu(config))
    : { traits: dump.traits, choices: GUESSED, name: dump.traits.cpu ? "a CPU" : "a GPU" };
  const files = stepFiles(step, config, target.traits, target.choices, dump.everyVariant);
  yield* writeDump(folder, { "config.json": `${JSON.stringify(config, null, 2)}\n`, ...files });
  const { kernels, memory }: DumpedProgram = JSON.parse(files["kernels.json"]);
  const shaders = new Set(kernels.map(({ shader }) => shader)).size;
  return `${folder}: the step for ${target.name}, ${kernels.length} dispatches of ${shaders} shaders, ` +
    `${writtenBytes(memory.total)} of device memory`;
});

const adapterAtHand = Effect.gen(function* () {
  const { traits, report } = yield* Gpu;
  return { traits, choices: (yield* TunedChoices)(report), name: report.description };
});

/** The files of a dump, by name. */
const stepFiles = <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  traits: AdapterTraits,
  choices: Choices,
  everyVariant: boolean,
) => {
  const share = { ...config, batchSize: config.batchSize / config.ranks };
  const { graph, state } = limitedStep(step, share, traits, acrossRanks(0, config.ranks));
  const isState = (name: string) => state.declared.has(name);
  return dumpProgram(graph, traits, { isState, choices, everyVariant });
};
