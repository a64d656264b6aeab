import { createHash } from "node:crypto";
import { dirname, resolve } from "node:path";
import { Console, Effect, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { match } from "ts-pattern";
import { datasets, listImages } from "../data/datasets/image_list.ts";
import { openBytes } from "../data/files/byte_source.ts";
import type { Backend } from "../ops/graph/lowering.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { evenly } from "../pipeline/eval/described.ts";
import { type PrototypeUse, prototypeUse } from "../pipeline/eval/prototype_use.ts";
import { isBuiltIn } from "../pipeline/optim/optimizers.ts";
import { planSchedule } from "../pipeline/optim/schedule.ts";
import { type Config, optionNames, OPTIONS } from "../pipeline/pretrain/config.ts";
import { publishedConfig } from "../pipeline/pretrain/published.ts";
import { PRETRAIN, pretrainMeta, type RecordedConfig } from "../pipeline/pretrain/task.ts";
import { writtenBytes } from "../pipeline/run/bytes.ts";
import type { CheckpointError } from "../pipeline/run/checkpoint_file.ts";
import { flagName } from "../pipeline/run/option_name.ts";
import type { TaskOptions } from "../pipeline/run/options.ts";
import { type RunStatus, runStatus, statusInWords } from "../pipeline/run/run_status.ts";
import { table } from "../pipeline/run/table.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "../pipeline/transfer/segmentation/config.ts";
import type { SegmentationMeta } from "../pipeline/transfer/segmentation/task.ts";
import { describedSegmentor } from "../pipeline/transfer/segmentation/weights.ts";
import { wholeEncoderOf } from "../pipeline/weights/encoder.ts";
import { inspect as inspectWeights, type Inspection } from "../pipeline/weights/inspect.ts";
import { teacherOf } from "../pipeline/weights/teacher.ts";
import { isSegmentor, openWeights, type WeightsFile } from "../pipeline/weights/weights_file.ts";
import { deviceFlag, maxBadImagesFlag } from "./flags/common_flags.ts";
import { expectWithin } from "./flags/usage_error.ts";
import { bold, dim, green, red, yellow } from "./terminal/color.ts";
import { doingNow } from "./terminal/doing.ts";
import { progressLine } from "./terminal/progress_line.ts";
import { layerWarnings } from "./terminal/warnings.ts";
import { whatItIs } from "./terminal/weights_in_words.ts";

export const inspect = Command.make(
  "inspect",
  {
    file: Argument.String("checkpoint").pipe(Argument.withDescription("file of weights, of any format")),
    dataDir: Flag.String("data-dir").pipe(
      Flag.withMetavar("PATH"),
      Flag.withDescription("also count on these pictures which prototypes are in use"),
      Flag.optional,
    ),
    dataset: Flag.Literals("dataset", datasets).pipe(
      Flag.withDescription("layout of that folder"),
      Flag.withDefault("Folder" as const),
    ),
    pictures: Flag.Int("pictures").pipe(
      Flag.withDescription("how many of them, evenly from the whole list"),
      Flag.withDefault(200),
    ),
    maxBadImages: maxBadImagesFlag,
    device: deviceFlag,
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("print one JSON object instead of a page"),
      Flag.withDefault(false),
    ),
  },
  Effect.fn(function* ({ file, json, ...flags }) {
    yield* doingNow(`Examining ${file}`);
    yield* expectWithin({ pictures: [flags.pictures, 1], "max-bad-images": [flags.maxBadImages, 0, 1] });
    const weights = yield* openWeights(file);
    const facts = yield* gather(weights);
    const use = Option.isNone(flags.dataDir) || !facts.sound
      ? null
      : yield* countUse(weights, { ...flags, dataDir: flags.dataDir.value });
    yield* Console.log(
      json ? JSON.stringify({ ...facts, use }, null, 2) : page(facts, use),
    );
    Deno.exitCode = facts.sound ? 0 : 1;
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Look into a file of weights: what it is, how far its run is, its options, whether its checksums hold, and its " +
      "health: values that are not finite, norms, prototypes that are doubles or (with --data-dir) not in use. The exit " +
      "status is 1 if the file is damaged or has values that are not finite.",
  ),
  Command.withShortDescription("Tell what a checkpoint is and whether it is sound"),
  Command.withExamples([
    {
      command: "slotcon inspect runs/demo/checkpoints/step_000300.safetensors",
      description: "A checkpoint of a run",
    },
    {
      command: "slotcon inspect ckpt_epoch_800.pth --data-dir datasets/coco --dataset COCOval",
      description: "A published one, and how many of its prototypes are in use",
    },
  ]),
);

interface Facts extends Inspection {
  readonly file: string;
  readonly is: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly sound: boolean;
  readonly tensors: number;
  readonly run:
    | {
      readonly step: number | null;
      readonly epoch: number;
      /** Epochs at its end, which `--steps` may bring about sooner. */
      readonly epochs: number;
      readonly options: RecordedConfig;
    }
    | null;
  readonly encoder: { readonly arch: string; readonly width: number } | null;
  /** The segmentor that the file holds whole; what it does not say is null. */
  readonly segmentor:
    | {
      readonly classes: readonly string[];
      /** Per cent on the validation pictures. */
      readonly miou: number | null;
      readonly step: number | null;
      readonly options: SegmentationConfig | null;
    }
    | null;
  /** How the run in whose folder the file is is doing or how it ended; null where no run's folder says so. */
  readonly status: RunStatus | null;
}

const gather = Effect.fnUntraced(function* (weights: WeightsFile) {
  const source = yield* openBytes(weights.file);
  const hash = createHash("sha256");
  for (let at = 0; at < source.size; at += PIECE) {
    hash.update(yield* source.read(at, Math.min(PIECE, source.size - at)));
  }
  const inspection = yield* inspectWeights(weights);
  const encoder = yield* wholeEncoderOf(weights, "teacher").pipe(
    Effect.map(({ options: { arch, width } }) => ({ arch, width })),
    Effect.orElseSucceed(() => null),
  );
  return {
    file: weights.file,
    is: whatItIs(weights),
    bytes: source.size,
    sha256: hash.digest("hex"),
    sound: inspection.damaged.length === 0 && inspection.nonFinite.length === 0,
    tensors: weights.tensors.size,
    run: yield* runOf(weights, encoder?.width ?? 64),
    encoder,
    segmentor: yield* segmentorIn(weights),
    status: runStatus(dirname(dirname(resolve(weights.file)))),
    ...inspection,
  } satisfies Facts as Facts;
});
const PIECE = 1 << 24;

const runOf = (
  { file, content }: WeightsFile,
  width: number,
): Effect.Effect<Facts["run"], CheckpointError> =>
  match(content)
    .with({ kind: "checkpoint", task: PRETRAIN.name }, (content) =>
      Effect.map(pretrainMeta(file, content), ({ step, config, instances }) => {
        const { stepsPerEpoch, totalSteps } = planSchedule({ ...config, world: 1, instances });
        const epochs = Math.ceil(Math.min(totalSteps, config.steps ?? Infinity) / stepsPerEpoch);
        return { step, epoch: Math.floor(step / stepsPerEpoch), epochs, options: config };
      }))
    .with({ kind: "published" }, ({ published }) =>
      Effect.succeed({
        step: published.steps,
        epoch: published.epoch,
        epochs: publishedConfig(published, width).epochs,
        options: publishedConfig(published, width),
      }))
    .otherwise(() =>
      Effect.succeed(null)
    );

const segmentorIn = Effect.fnUntraced(function* (weights: WeightsFile) {
  if (!isSegmentor(weights)) return null;
  const { content } = weights;
  const described = yield* describedSegmentor(weights, null).pipe(Effect.orElseSucceed(() => null));
  if (described === null) return null;
  const classes = described.classes.map(({ name }) => name);
  if (content.kind !== "checkpoint") return { classes, miou: null, step: null, options: null };
  const { miou } = content.meta as SegmentationMeta; // as it has just been found to be
  return { classes, miou, step: content.meta.step, options: described.config };
});

const countUse = Effect.fnUntraced(function* (
  weights: WeightsFile,
  flags: {
    readonly dataDir: string;
    readonly dataset: Config["dataset"];
    readonly pictures: number;
    readonly maxBadImages: number;
    readonly device: Backend;
  },
) {
  const { model, values } = yield* teacherOf(weights);
  const files = evenly(yield* listImages(flags), flags.pictures);
  return yield* prototypeUse(model, values, files, flags.maxBadImages).pipe(
    Effect.provide([layers[flags.device], layerWarnings(progressLine())]),
  );
});

const page = (facts: Facts, use: PrototypeUse | null): string => {
  const { run, encoder, segmentor, prototypes, groups, damaged, nonFinite } = facts;
  const rows: [string, string][] = [
    ["is", facts.is],
    ["size", `${writtenBytes(facts.bytes)}, ${facts.tensors} tensors`],
    ["sha256", facts.sha256],
    ...encoder === null
      ? []
      : [["encoder", `${encoder.arch}, ${encoder.width} channels behind the stem`]] as const,
    ...segmentor === null ? [] : [
      ["classes", inShort(segmentor.classes)],
      ...segmentor.options === null ? [] : [
        ["run", `${segmentor.step} of ${segmentor.options.iterations} steps done`],
        ...segmentor.miou === null
          ? []
          : [["mIoU", `${segmentor.miou.toFixed(2)} % of the validation pictures`]],
        ...facts.status === null ? [] : [["its end", statusInWords(facts.status)]],
        ["options", changedOptions(SEGMENTATION_OPTIONS, segmentor.options)],
      ],
    ] as [string, string][],
    ...run === null ? [] : [
      ["run", `${run.step ?? "?"} steps, ${run.epoch} of ${run.epochs} epochs done`],
      ...facts.status === null ? [] : [["its end", statusInWords(facts.status)]] as const,
      ["options", ownOptions(run.options)],
      ...isBuiltIn(run.options.optimizer)
        ? []
        : [["optimiser", `${run.options.optimizer}, of a step of the user's own`]] as const,
    ] as const,
  ].map(([name, text]) => [name, text]);
  const width = Math.max(...rows.map(([name]) => name.length));
  const health = groups.map(({ group, tensors, values, norm, largest, notFinite }) => [
    group,
    String(tensors),
    values.toLocaleString("en"),
    norm.toPrecision(4),
    largest.toPrecision(3),
    String(notFinite),
  ]);
  const lines = [
    ...damaged.map((reason) => `${red("damaged")}  ${reason}`),
    ...damaged.length === 0
      ? [`${green("ok     ")}  every tensor can be read, and matches its checksum where it has one`]
      : [],
    ...nonFinite.slice(0, MOST_NAMED).map((which) => `${red("problem")}  ${which} are not finite`),
    ...nonFinite.length > MOST_NAMED
      ? [`${red("problem")}  and so it is in ${nonFinite.length - MOST_NAMED} more tensors`]
      : [],
    ...nonFinite.length === 0 ? [`${green("ok     ")}  all values are finite`] : [],
    ...prototypes === null ? [] : [prototypeLine(prototypes)],
    ...use === null ? [] : [useLine(use)],
  ];
  return [
    bold(facts.file),
    ...rows.map(([name, text]) => `${dim(name.padEnd(width))}  ${text}`),
    "",
    table([["", "tensors", "values", "norm", "largest", "not finite"], ...health]),
    "",
    ...lines,
  ].join("\n");
};

/** Tensors that are named where values are not finite. */
const MOST_NAMED = 10;

const prototypeLine = ({ count, zero, doubles }: NonNullable<Inspection["prototypes"]>) =>
  zero + doubles === 0
    ? `${green("ok     ")}  ${count} prototypes, each with a direction of its own`
    : `${yellow("warning")}  of ${count} prototypes ${zero} are zero and ${doubles} are doubles of another`;

const useLine = ({ pictures, leftOut, shares, live, effective }: PrototypeUse) =>
  `${live < shares.length / 2 ? yellow("warning") : green("ok     ")}  on ${pictures} pictures${
    leftOut.length === 0 ? "" : ` (${leftOut.length} left out)`
  } ${live} of ` +
  `${shares.length} prototypes win somewhere, ${shares.length - live} are dead; as mixed as ${
    effective.toFixed(1)
  } ` +
  "used alike";

/** The options that differ from their defaults, as flags; no flag can choose an optimiser of the user's own. */
const ownOptions = (config: RecordedConfig): string =>
  changedOptions({
    table: OPTIONS,
    names: optionNames.filter((name) => name !== "optimizer" || isBuiltIn(config.optimizer)),
  }, config as Config);

const changedOptions = <C>(
  { table, names }: Pick<TaskOptions<C>, "table" | "names">,
  config: C,
): string =>
  names.filter((name) => config[name] !== table[name].initial)
    .map((name) => `--${flagName(name)} ${config[name]}`).join(" ") || "all at their defaults";

/** Names, of many only the first. */
const inShort = (names: readonly string[]): string =>
  `${names.length}: ${names.slice(0, 8).join(", ")}${
    names.length > 8 ? ` and ${names.length - 8} more` : ""
  }`;
