import { join } from "node:path";
import { Console, Context, Effect, Layer, Option, Result, type Scope } from "effect";
import { Command, Flag } from "effect/cli";
import sharp from "sharp";
import { listImages } from "../data/datasets/image_list.ts";
import project from "../deno.json" with { type: "json" };
import { GUESSED, TunedChoices } from "../ops/compiler/kernel_selection.ts";
import type { AdapterReport, AdapterTraits } from "../ops/graph/lowering.ts";
import { Collective } from "../ops/runtime/collective.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { type Config, optionNames } from "../pipeline/pretrain/config.ts";
import { planStep, type StepPlan } from "../pipeline/pretrain/step_plan.ts";
import { numbered, rankGpu } from "../pipeline/ranks/device.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import { type VulkanDevice, vulkanDevices } from "../pipeline/ranks/vulkan.ts";
import { adviceOn } from "../pipeline/run/advice.ts";
import { bytesIn, writtenBytes } from "../pipeline/run/bytes.ts";
import { decodeSpeed } from "./doctor/decode_speed.ts";
import { diagnose, type Facts, type Finding, type StepFacts, stepFindings } from "./doctor/diagnosis.ts";
import { dumpFlags, dumpOf, dumpStep } from "./doctor/dump_step.ts";
import { type RankSpeed, rankSpeed } from "./doctor/rank_speed.ts";
import { vulkanDrivers } from "./doctor/vulkan_drivers.ts";
import { askRanks, ownRank, startsRanks } from "./launch/start_ranks.ts";
import { configFlags, configOf } from "./flags/config_flags.ts";
import { bold, dim, green, red, yellow } from "./terminal/color.ts";

export const doctor = Command.make(
  "doctor",
  {
    ...configFlags,
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("print one JSON object instead of a page"),
      Flag.withDefault(false),
    ),
    ...dumpFlags,
  },
  Effect.fn(function* ({ json, ...flags }) {
    const runOptions = optionNames.filter((name) => name !== "device");
    const namesRun = [flags.preset, flags.config, ...runOptions.map((name) => flags[name])].some(
      Option.isSome,
    );
    const config = yield* configOf({ ...flags, preset: namesRun ? flags.preset : Option.some("demo") });
    const dump = yield* dumpOf(flags);
    if (dump !== null) return yield* Console.log(yield* dumpStep(config, dump));
    const namesData = Option.isSome(flags.dataDir) || Option.isSome(flags.config);
    if (ownRank !== null) return yield* tellRankSpeed(config);

    const alone = yield* gather({ ...config, batchSize: config.batchSize / config.ranks }, namesData);
    const facts = { ...alone, ranks: (yield* startsRanks(config)) ? yield* measuredRanks(config) : null };
    const findings = diagnose(facts);
    const ready = findings.every(({ level }) => level !== "problem");
    yield* Console.log(json ? JSON.stringify({ ready, findings, ...facts }, null, 2) : page(facts, findings));
    if (!json && !namesRun) {
      yield* Console.log(dim("\nThis is the demo's run: name another by the options of pretrain."));
    }
    Deno.exitCode = ready ? 0 : 1;
  }, Effect.scoped),
).pipe(
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
  ]),
);

/** The limits that WebGPU guarantees: the plan is made for them where there is no adapter. */
const GUARANTEED = {
  maxStorageBuffersPerShaderStage: 8,
  maxStorageBufferBindingSize: 2 ** 27,
  maxBufferSize: 2 ** 28,
};

const gather = Effect.fn("gather")(
  function* (config: Config, namesData: boolean): Effect.fn.Return<Omit<Facts, "ranks">, never, Scope.Scope> {
    const devices = numbered(vulkanDevices() ?? []); // before one of them is chosen
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
      const plan = planStep(sized, traits, limits, choices);
      return { config: sized, adapter, plan, freeMemory, smallerBatch: null };
    };
    const wanted = stepFacts(config.batchSize);
    const speed = yield* Effect.result(decodeSpeed(config, limits.maxStorageBufferBindingSize, CACHE));
    return {
      ...wanted,
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
      images: namesData ? yield* countImages(config) : null,
    };
  },
);

/** In a rank: measures with the others; the first one prints what they found, for the process that started them. */
const tellRankSpeed = Effect.fnUntraced(
  function* (config: Config) {
    const { report, traits } = yield* Gpu;
    const sized = { ...config, batchSize: config.batchSize / (yield* Collective).world };
    const plan = planStep(sized, traits, report.limits, (yield* TunedChoices)(report));
    const speed = yield* rankSpeed(config, plan.reservedBytes);
    if (ownRank === 0) yield* Console.log(JSON.stringify(speed));
  },
  (effect, config) => effect.pipe(Effect.provide(rankGpu(config)), Effect.provide(ranks(config))),
);

/** In the process that starts ranks: what they measure. */
const measuredRanks = Effect.fnUntraced(function* (config: Config) {
  const asked = yield* Effect.result(askRanks(config.ranks));
  if (Result.isFailure(asked)) return { failure: asked.failure.message, remedy: "or leave out --ranks" };
  const { code, printed } = asked.success;
  return code === 0
    ? JSON.parse(printed) as RankSpeed
    : { failure: `${config.ranks} ranks cannot work together here`, remedy: "see what they say above" };
});

const canRun = (facts: StepFacts) => stepFindings(facts).every(({ level }) => level !== "problem");

/** A smaller power of two with which the step can run: the largest, or one not far below. */
const findSmallerBatch = (
  { adapter, config, plan, freeMemory }: StepFacts,
  stepFacts: (batchSize: number) => StepFacts,
): number | null => {
  if ("failure" in adapter) return null;
  // Memory grows with the batch at least in proportion.
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

/** Where every command may write. */
const CACHE = join(import.meta.dirname!, "../.cache");

const countImages = (config: Config): Effect.Effect<Facts["images"]> =>
  listImages(config).pipe(
    Effect.map((paths): Facts["images"] => paths.length),
    Effect.catch(({ message }) =>
      Effect.succeed({ failure: message, remedy: "see --data-dir and --dataset" })
    ),
  );

/** What runs, and the versions that the project pins. */
const versions = (): Record<string, string> => {
  const pinned = Object.values(project.imports).flatMap((specifier) => {
    const [, name, version] = specifier.match(/^npm:([^/].*)@([^/]+)$/) ?? [];
    return name === undefined ? [] : [[name, version]];
  });
  return { Deno: Deno.version.deno, ...Object.fromEntries(pinned), libvips: sharp.versions.vips };
};

/** Tries the folder out and leaves it as it was. */
const outputState = (folder: string): Facts["output"] => {
  try {
    if (madeFolder(folder)) {
      Deno.removeSync(folder);
      return "absent";
    }
    Deno.removeSync(Deno.makeTempFileSync({ dir: folder, prefix: "doctor" }));
    return "writable";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "absent"; // and so is the folder above
    return {
      failure: `the output folder "${folder}" cannot be written: ${
        (error as Error).message.replace(/, run again.*/, "")
      }`,
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

const page = (facts: Facts, findings: readonly Finding[]): string => {
  const { config, adapter, plan } = facts;
  const rows: (readonly [string, string])[] = [
    ...("failure" in adapter ? [] : adapterRows(adapter)),
    ...facts.devices.length < 2 ? [] : deviceRows(facts.devices),
    [
      "step",
      `${config.arch}, ${config.imageSize} px, batch ${config.batchSize}` +
      `${
        config.ranks > 1 ? ` on each of ${config.ranks} ranks` : ""
      }, ${config.numPrototypes} prototypes, ${config.precision}`,
    ],
    ...memoryRows(plan),
    ...facts.ranks === null || "failure" in facts.ranks ? [] : rankRows(facts.ranks),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return [
    ...rows.map(([name, text]) => `${bold(name.padEnd(width))}  ${text}`),
    "",
    ...findings.map(({ level, says, mend }) =>
      `${MARKS[level]}  ${says}${mend === undefined ? "" : dim(` → ${mend}`)}`
    ),
  ].join("\n");
};

const MARKS = { ok: green("ok     "), warning: yellow("warning"), problem: red("problem") };

const adapterRows = ({ description, backend, software, limits, features }: AdapterReport) => {
  const used = ["shader-f16", "subgroups", "timestamp-query"].filter((feature) => features.includes(feature));
  return [
    ["adapter", `${description}${software ? " (a CPU)" : ""}, ${backend}`],
    [
      "limits",
      `${writtenBytes(limits.maxBufferSize)} a buffer, ${
        writtenBytes(limits.maxStorageBufferBindingSize)
      } a binding, ` +
      `${limits.maxStorageBuffersPerShaderStage} buffers a shader, ` +
      `${limits.maxComputeWorkgroupStorageSize / 1024} KiB shared by a workgroup`,
    ],
    ["features", used.join(", ") || "none of shader-f16, subgroups, timestamp-query"],
  ] as const;
};

/** What --device can name. */
const deviceRows = (devices: readonly VulkanDevice[]) =>
  devices.map(({ name, pci }, i) =>
    [i === 0 ? "adapters" : "", `${i} ${name}${pci === null ? "" : ` (${pci})`}`] as const
  );

const rankRows = ({ ranks }: RankSpeed) =>
  ranks.map(({ host, adapter }, rank) =>
    [rank === 0 ? "ranks" : "", `${rank} on ${host}: ${adapter}`] as const
  );

const memoryRows = ({ groups, peakBytes, reservedBytes, slotPictureBytes, largest }: StepPlan) => {
  const amount = (name: string, bytes: number) => `${name.padEnd(11)} ${writtenBytes(bytes).padStart(9)}`;
  const bar = (bytes: number) => "█".repeat(Math.round(24 * bytes / peakBytes));
  const spare = Math.round(100 * (reservedBytes / peakBytes - 1));
  return [
    ...Object.entries(groups).map(([group, bytes], i) =>
      [i === 0 ? "memory" : "", `${amount(group, bytes)}  ${bar(bytes)}`] as const
    ),
    ["", amount("at the peak", peakBytes)],
    ["", `${amount("reserved", reservedBytes)}  ${spare} % more, for gaps between tensors`],
    ["", `${amount("slot maps", slotPictureBytes)}  besides, for drawing them`],
    ...largest.slice(0, 3).map(({ tensor, bytes, count }, i) =>
      [
        i === 0 ? "largest" : "",
        `${amount("", bytes)}  ${tensor}${count > 1 ? `, ${count} times` : ""}`,
      ] as const
    ),
  ] as const;
};
