import { basename, dirname, relative } from "node:path";
import { Effect, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { datasets, listImages } from "../data/datasets/image_list.ts";
import { permutation } from "../data/random/random.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { showPictures } from "../pipeline/visualize/pictures.ts";
import { type PrototypesOptions, showPrototypes } from "../pipeline/visualize/prototypes.ts";
import type { Watcher } from "../pipeline/visualize/watcher.ts";
import { type Teacher, teacherOf } from "../pipeline/weights/teacher.ts";
import { openWeights } from "../pipeline/weights/weights_file.ts";
import { deviceFlag, maxBadImagesFlag } from "./flags/common_flags.ts";
import { expectWithin, UsageError } from "./flags/usage_error.ts";
import { doingNow, heardGpu } from "./terminal/doing.ts";
import { type ProgressLine, progressLine } from "./terminal/progress_line.ts";
import { voice } from "./terminal/voice.ts";
import { layerWarnings } from "./terminal/warnings.ts";
import { expectNotRead, type Shown, targetOf, writeShown } from "./visualize/output.ts";

export const visualize = Command.make(
  "visualize",
  {
    checkpoint: Argument.String("checkpoint").pipe(
      Argument.withDescription("checkpoint of this project or of the published code"),
    ),
    others: Argument.String("picture").pipe(
      Argument.withDescription("further pictures after --images"),
      Argument.variadic(),
    ),
    dataDir: Flag.String("data-dir").pipe(
      Flag.withMetavar("PATH"),
      Flag.withDescription("folder of the data set (default: datasets/coco)"),
      Flag.withDefault("datasets/coco"),
    ),
    dataset: Flag.Literals("dataset", datasets).pipe(
      Flag.withDescription(
        "layout of that folder; Folder: any pictures, or a text file of paths (default: COCOval)",
      ),
      Flag.withDefault("COCOval" as const),
    ),
    topk: Flag.Int("topk").pipe(
      Flag.withDescription("nearest pictures of each prototype (default: 5)"),
      Flag.withDefault(5),
    ),
    sampling: Flag.Int("sampling").pipe(
      Flag.withDescription("draw this many prototypes, at random; the page has all (default: 0, all)"),
      Flag.withDefault(0),
    ),
    idxs: Flag.String("idxs").pipe(
      Flag.withMetavar("NUMBERS"),
      Flag.withDescription("draw these prototypes, for example 3,7"),
      Flag.optional,
    ),
    images: Flag.String("images").pipe(
      Flag.withMetavar("PICTURE..."),
      Flag.withDescription("show the slots of these pictures instead, whole: --images a.jpg b.jpg"),
      Flag.atLeast(0),
    ),
    savePath: Flag.String("save-path").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription(
        "picture (.jpg, .png) with a page of the same name beside it, or a page alone (.html) (default: viz_slots.jpg)",
      ),
      Flag.withDefault("viz_slots.jpg"),
    ),
    batchSize: Flag.Int("batch-size").pipe(
      Flag.withDescription("pictures that the device works on at a time (default: 64)"),
      Flag.withDefault(64),
    ),
    maxBadImages: maxBadImagesFlag,
    seed: Flag.Int("seed").pipe(
      Flag.withDescription("seed of --sampling (default: 0)"),
      Flag.withDefault(0),
    ),
    device: deviceFlag,
  },
  Effect.fn(function* ({ checkpoint, others, images, device, savePath, ...flags }) {
    const target = yield* targetOf(savePath);
    yield* expectWithin({
      topk: [flags.topk, 1, 100],
      "batch-size": [flags.batchSize, 1, 4096],
      "max-bad-images": [flags.maxBadImages, 0, 1],
      seed: [flags.seed, 0, 2 ** 32 - 1],
    });
    if (others.length > 0 && images.length === 0) {
      return yield* new UsageError({
        subject: "--images",
        reason: `"${
          others[0]
        }" stands behind the checkpoint: pictures are named by --images, data sets by --data-dir`,
      });
    }
    yield* doingNow(`Reading ${checkpoint}`);
    const teacher = yield* teacherOf(yield* openWeights(checkpoint));
    const pictures = [...images, ...others];
    const rows = yield* chosen(flags, teacher.model.numPrototypes);
    const files = pictures.length > 0 ? pictures : yield* listImages(flags);
    yield* expectNotRead(target, files);
    yield* doingNow("Opening the GPU");
    const line = progressLine();
    const options = { ...flags, rows, watcher: watcherOn(line) };
    const shown = yield* Effect.gen(function* () {
      return pictures.length > 0
        ? yield* ofPictures(teacher, files, options)
        : yield* ofPrototypes(teacher, files, options);
    }).pipe(Effect.provide([heardGpu(layers[device]), layerWarnings(line)]));
    yield* writeShown(target, shown, basename(checkpoint));
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "See what a run's prototypes stand for: for each its nearest pictures of a data set, with the region that it wins " +
      "tinted. The page has every prototype, how often it is used, and each picture beside its slots. With --images: the " +
      "slots of any pictures. Pictures that cannot be decoded are named and left out.",
  ),
  Command.withShortDescription("See what prototypes stand for, and the slots of pictures"),
  Command.withExamples([
    {
      command: "slotcon visualize ckpt_epoch_800.pth --data-dir datasets/coco --topk 5 --sampling 20",
      description: "Twenty prototypes of a published run, and their nearest pictures in COCO's val2017",
    },
    {
      command:
        "slotcon visualize runs/demo/checkpoints/step_000300.safetensors --data-dir runs/demo/data --idxs 3,7",
      description: "Two prototypes of the demo",
    },
    {
      command: "slotcon visualize ckpt_epoch_800.pth --images cat.jpg street.png --save-path slots.png",
      description: "The slots of two pictures",
    },
  ]),
);

/** The prototypes to draw: those that --idxs names, or a random sample; null: all. */
const chosen = Effect.fnUntraced(function* (
  { sampling, idxs, seed }: {
    readonly sampling: number;
    readonly idxs: Option.Option<string>;
    readonly seed: number;
  },
  K: number,
) {
  yield* expectWithin({ sampling: [sampling, 0, K] });
  if (Option.isNone(idxs)) {
    if (sampling === 0) return null;
    return Array.from(permutation(K, seed, SAMPLING).subarray(0, sampling)).sort((a, b) => a - b);
  }
  if (sampling > 0) {
    return yield* new UsageError({ subject: "--sampling", reason: "--idxs names the prototypes already" });
  }
  const words = idxs.value.split(",").map((word) => word.trim());
  const wrong = words.find((word) => !/^\d+$/.test(word) || Number(word) >= K);
  if (wrong !== undefined) {
    const reason = `expected numbers such as 3,7 (there are ${K} prototypes, 0 to ${
      K - 1
    }), found "${wrong}"`;
    return yield* new UsageError({ subject: "--idxs", reason });
  }
  return words.map(Number);
});

/** The stream of random numbers that the sample is drawn from. */
const SAMPLING = 7;

const ofPrototypes = Effect.fnUntraced(function* (
  teacher: Teacher,
  files: readonly string[],
  { dataDir, ...options }: Omit<PrototypesOptions, "nameOf"> & { readonly dataDir: string },
) {
  const root = dataDir.endsWith(".txt") ? dirname(dataDir) : dataDir;
  const { retrieval, sheet, rows, pictures, prototypes } = yield* showPrototypes(teacher, files, {
    ...options,
    nameOf: (file) => relative(root, file),
  });
  const live = retrieval.wonIn.filter((pictures) => pictures > 0).length;
  const left = files.length - retrieval.pictures;
  return {
    sheet,
    pictures,
    prototypes,
    looked: retrieval.pictures,
    facts: `${counted(retrieval.pictures, left)}; prototypes in use: ${live} of ${prototypes.length}`,
    says: `${rows} prototypes, each with its ${Math.min(options.topk, retrieval.pictures)} nearest pictures`,
  } satisfies Shown as Shown;
});

const ofPictures = Effect.fnUntraced(function* (
  teacher: Teacher,
  files: readonly string[],
  { watcher }: { readonly watcher: Watcher },
) {
  const shown = yield* showPictures(teacher, files, { nameOf: (file) => basename(file), watcher });
  const looked = shown.pictures.length;
  const used = `${shown.prototypes.length} of ${teacher.model.numPrototypes}`;
  return {
    ...shown,
    looked,
    facts: `${counted(looked, files.length - looked)}; prototypes in use: ${used}`,
    says: `${counted(looked, 0)} beside ${looked === 1 ? "its" : "their"} slots`,
  } satisfies Shown as Shown;
});

const counted = (looked: number, left: number) =>
  `${looked} picture${looked === 1 ? "" : "s"}${left === 0 ? "" : `, ${left} left out`}`;

/** Shows progress on a terminal. */
const watcherOn = (line: ProgressLine): Watcher => ({
  progress: (stage, done, total) =>
    Effect.sync(() => {
      const words = `${stage}: ${done} of ${total}`;
      voice.doing(words);
      return done === total ? line.clear() : line.show(words);
    }),
});
