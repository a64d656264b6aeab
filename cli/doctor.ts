import { join } from "node:path";
import { Console, Context, Effect, Layer, Option, Result, type Scope } from "effect";
import { Command, Flag } from "effect/cli";
import sharp from "sharp";
import project from "../deno.json" with { type: "json" };
import { GUESSED, TunedChoices } from "../ops/compiler/kernel_selection.ts";
import type { AdapterTraits } from "../ops/graph/lowering.ts";
import { Collective } from "../ops/runtime/collective.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { numbered, rankGpu } from "../pipeline/ranks/device.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import { vulkanDevices } from "../pipeline/ranks/vulkan.ts";
import { adviceOn } from "../pipeline/run/advice.ts";
import { bytesIn } from "../pipeline/run/bytes.ts";
import type { RunConfig } from "../pipeline/run/options.ts";
import { planStep } from "../pipeline/run/step_plan.ts";
import { decodeSpeed } from "./doctor/decode_speed.ts";
import { diagnose, type Facts, type StepFacts, stepFindings } from "./doctor/diagnosis.ts";
import { dumpFlags, dumpOf, dumpStep } from "./doctor/dump_step.ts";
import { type RankSpeed, rankSpeed } from "./doctor/rank_speed.ts";
import { doctorReport } from "./doctor/report.ts";
import { vulkanDrivers } from "./doctor/vulkan_drivers.ts";
import { askRanks, ownRank, startsRanks } from "./launch/start_ranks.ts";
import { configFrom, flagsOf, type Parsed } from "./flags/config_flags.ts";
import { type CliTask, PRETRAINING, SEGMENTATION } from "./flags/tasks.ts";
import { dim } from "./terminal/color.ts";
import { withoutFlags } from "../data/files/regular_file.ts";
import { doingNow } from "./terminal/doing.ts";

/** The command `name` that looks at this machine as a run of a task would find it. */
const doctorOf = <Name extends string, C extends RunConfig, Preset extends string>(
  name: Name,
  task: CliTask<C, Preset>,
) => {
  const { options } = task;
  const configOf = configFrom(options);
  return Command.make(
    name,
    { run: flagsOf(options), json: jsonFlag, dump: dumpFlags },
    Effect.fn(function* ({ run: parsed, json, dump: dumped }) {
      const run = parsed as unknown as Parsed<C, Preset>; // which TypeScript cannot infer for any C
      const named: readonly Option.Option<unknown>[] = [
        run.preset,
        run.config,
        ...options.names.map((name) => name === "device" ? Option.none() : run[name]),
      ];
      const namesRun = named.some(Option.isSome);
      const config = yield* configOf({ ...run, preset: namesRun ? run.preset : Option.some(task.usual) });
      const dump = yield* dumpOf(dumped);
      if (dump !== null) return yield* Console.log(yield* dumpStep(task.step, config, dump));
      const namesData =
        Option.isSome((run as { readonly dataDir?: Option.Option<unknown> }).dataDir ?? Option.none()) ||
        Option.isSome(run.config);
      if (ownRank !== null) return yield* tellRankSpeed(task, config);

      yield* doingNow("Examining adapter, memory and data");
      const share = { ...config, batchSize: config.batchSize / config.ranks };
      const alone = yield* gather(task, share, namesData);
      const facts = { ...alone, ranks: (yield* startsRanks(config)) ? yield* measuredRanks(config) : null };
      const findings = diagnose(facts);
      const ready = findings.every(({ level }) => level !== "problem");
      yield* Console.log(
        json ? JSON.stringify({ ready, findings, ...facts }, null, 2) : doctorReport(facts, findings),
      );
      if (!json && !namesRun) {
        yield* Console.log(
          dim(`\nThis is the run "${task.usual}": name another by the options of slotcon ${options.task}.`),
        );
      }
      Deno.exitCode = ready ? 0 : 1;
    }, Effect.scoped),
  );
};

const jsonFlag = Flag.Boolean("json").pipe(
  Flag.withDescription("print one JSON object instead of a page"),
  Flag.withDefault(false),
);

const segmentationDoctor = doctorOf("segmentation", SEGMENTATION).pipe(
  Command.withDescription(
    "The same for fine-tuning on semantic segmentation. Takes the options of transfer segmentation.",
  ),
  Command.withShortDescription("The same for fine-tuning on semantic segmentation"),
  Command.withExamples([
    {
      command: "slotcon doctor segmentation --recipe cityscapes --batch-size 8",
      description: "What the published recipe takes with the batch of one of its ranks",
    },
  ]),
);

export const doctor = doctorOf("doctor", PRETRAINING).pipe(
  Command.withDescription(
    "Look at this machine as a run would find it: the adapter and its limits, the memory that the run's step takes, " +
      "how fast pictures are decoded, and what is wrong and how to mend it, a line each. Takes the options of pretrain; " +
      "without any it looks at the demo's run. The exit status is 1 if the run could not start.",
  ),
  Command.withShortDescription("Tell what a run needs and whether this machine has it"),
  Command.withExamples([
    { command: "slotcon doctor", description: "Is everything there for the demo?" },
    {
      command: "slotcon doctor --preset coco-800 --batch-size 64",
      description: "What the published run takes with a smaller batch",
    },
    {
      command: "slotcon doctor --preset coco-800 --ranks 8",
      description: "How fast eight ranks exchange, and what it costs a step",
    },
    { command: "slotcon doctor --config run.yaml --json", description: "For a program to read" },
    {
      command: "slotcon doctor --preset coco-800 --dump-program step --traits gpu",
      description: "The kernels that a GPU would get, on any machine",
    },
    { command: "slotcon doctor segmentation --recipe voc", description: "What fine-tuning takes" },
  ]),
  Command.withSubcommands([segmentationDoctor]),
);

/** The limits that WebGPU guarantees; without an adapter, the step is planned for them. */
const GUARANTEED = {
  maxStorageBuffersPerShaderStage: 8,
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
};

const gather = Effect.fn("gather")(
  function* <C extends RunConfig, Preset extends string>(
    task: CliTask<C, Preset>,
    config: C,
    namesData: boolean,
  ): Effect.fn.Return<Omit<Facts, "ranks">, never, Scope.Scope> {
    const devices = numbered(vulkanDevices() ?? []); // before `rankGpu` leaves only the chosen one visible
    const opened = yield* Effect.result(Layer.build(rankGpu(config)));
    const gpu = Result.isSuccess(opened) ? Context.get(opened.success, Gpu) : null;
    const adapter = Result.match(opened, {
      onSuccess: (context): StepFacts["adapter"] => Context.get(context, Gpu).report,
      onFailure: (error) =>
        error._tag === "GpuError"
          ? { failure: `cannot ${error.subject}: ${error.reason}`, remedy: adviceOn(error) }
          : { failure: error.message, remedy: "see --device" },
    });
    const limits = gpu?.report.limits ?? GUARANTEED;
    const traits: AdapterTraits = gpu?.traits ?? {
      cpu: false,
      maxBinding: limits.maxStorageBufferBindingSize,
      shaderF16: false,
      minSubgroupSize: 0,
      maxStorageBuffers: limits.maxStorageBuffersPerShaderStage,
    };

    const choices = gpu === null ? GUESSED : (yield* TunedChoices)(gpu.report);
    const freeMemory = Deno.systemMemoryInfo().available;
    const stepFacts = (batchSize: number): StepFacts => {
      const sized = { ...config, batchSize };
      const plan = planStep(task.step, sized, traits, limits, choices);
      return { config: sized, adapter, plan, freeMemory, smallerBatch: null };
    };
    const wanted = stepFacts(config.batchSize);
    const speed = yield* Effect.result(decodeSpeed(task, config, limits.maxStorageBufferBindingSize, CACHE));
    return {
      ...wanted,
      words: task.step.words(config),
      smallerBatch: canRun(wanted) ? null : findSmallerBatch(wanted, stepFacts),
      drivers: vulkanDrivers(),
      devices,
      decodedPerSecond: Result.match(speed, {
        onSuccess: (rate): Facts["decodedPerSecond"] => rate,
        onFailure: ({ message }) => ({
          failure: `pictures cannot be decoded: ${message}`,
          remedy: "remove node_modules and start again: the launcher gets the image decoder anew",
        }),
      }),
      versions: versions(),
      output: outputState(config.outputDir),
      images: namesData ? yield* countImages(task, config) : null,
    };
  },
);

/** Runs in each rank: measures together with the others; rank 0 prints the result for the process that started them. */
const tellRankSpeed = Effect.fnUntraced(
  function* <C extends RunConfig, Preset extends string>({ step }: CliTask<C, Preset>, config: C) {
    const { report, traits } = yield* Gpu;
    const sized = { ...config, batchSize: config.batchSize / (yield* Collective).world };
    const plan = planStep(step, sized, traits, report.limits, (yield* TunedChoices)(report));
    const speed = yield* rankSpeed(step, config, plan.reservedBytes);
    if (ownRank === 0) yield* Console.log(JSON.stringify(speed));
  },
  (effect, _, config) => effect.pipe(Effect.provide(rankGpu(config)), Effect.provide(ranks(config))),
);

/** Runs in the process that starts the ranks: what they measure. */
const measuredRanks = Effect.fnUntraced(function* (config: RunConfig) {
  const asked = yield* Effect.result(askRanks(config.ranks));
  if (Result.isFailure(asked)) return { failure: asked.failure.message, remedy: "or leave out --ranks" };
  const { code, printed } = asked.success;
  return code === 0
    ? JSON.parse(printed) as RankSpeed
    : { failure: `${config.ranks} ranks cannot work together here`, remedy: "see what they say above" };
});

const canRun = (facts: StepFacts) => stepFindings(facts).every(({ level }) => level !== "problem");

/** A power of two with which the step can run: the largest one, or one not far below; null where there is none. */
const findSmallerBatch = (
  { adapter, config, plan, freeMemory }: StepFacts,
  stepFacts: (batchSize: number) => StepFacts,
): number | null => {
  if ("failure" in adapter) return null;
  // Memory grows at least in proportion to the batch.
  const excess = Math.max(
    plan.largest[0].bytes / adapter.limits.maxBufferSize,
    adapter.software ? plan.reservedBytes / freeMemory : 0,
    config.memoryLimit === null ? 0 : plan.reservedBytes / bytesIn(config.memoryLimit),
    1.01,
  );
  for (let size = 2 ** Math.floor(Math.log2(config.batchSize / excess)); size >= 1; size /= 2) {
    if (canRun(stepFacts(size))) return size;
  }
  return null;
};

/** The folder where every command may write. */
const CACHE = join(import.meta.dirname!, "../.cache");

const countImages = <C extends RunConfig, Preset extends string>(
  task: CliTask<C, Preset>,
  config: C,
): Effect.Effect<Facts["images"]> =>
  task.countImages(config).pipe(
    Effect.map((count): Facts["images"] => count),
    Effect.catch(({ message }) =>
      Effect.succeed({ failure: message, remedy: "see --data-dir and --dataset" })
    ),
  );

/** Versions of Deno, of the libraries that the project pins, and of libvips. */
const versions = (): Record<string, string> => {
  const pinned = Object.values(project.imports).flatMap((specifier) => {
    const [, name, version] = specifier.match(/^npm:([^/].*)@([^/]+)$/) ?? [];
    return name === undefined ? [] : [[name, version]];
  });
  return { Deno: Deno.version.deno, ...Object.fromEntries(pinned), libvips: sharp.versions.vips };
};

/** Whether the folder can be written; tries it and leaves it as it was. */
const outputState = (folder: string): Facts["output"] => {
  try {
    if (madeFolder(folder)) {
      Deno.removeSync(folder);
      return "absent";
    }
    Deno.removeSync(Deno.makeTempFileSync({ dir: folder, prefix: "doctor" }));
    return "writable";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "absent"; // the folder above is absent, too
    return {
      failure: `the output folder "${folder}" cannot be written: ${withoutFlags(error).message}`,
      remedy: "name another --output-dir",
    };
  }
};

/** Makes a folder; false if it is there already. */
const madeFolder = (folder: string): boolean => {
  try {
    Deno.mkdirSync(folder);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.AlreadyExists) return false;
    throw error;
  }
};
