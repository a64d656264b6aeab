/**
 * Whether pretraining helps a segmentor: `deno task bench:transfer [SEED...]`, seeds 0, 1 and 2 if none is given.
 *
 * Scenes are drawn, and a small network is pretrained on train2017 without labels, once. Then, for each seed, segmentors
 * are trained on few of its pictures with labels, from scratch and from the pretrained weights, by one recipe with the same
 * budget, and so is a linear layer on the frozen features of either. The seed chooses the pictures, the initial values and
 * all draws. All are scored on val2017 after their last step. Prints mean ± standard deviation over the seeds; every number
 * is in `runs/bench/transfer.json`. Pretraining takes some ten minutes on two CPU cores, and a seed as long. Run again, it
 * goes on where it was stopped.
 */
import { join } from "node:path";
import { Effect } from "effect";
import { comparedDescriptors } from "../cli/evaluate/compared_descriptors.ts";
import { layerReport } from "../cli/terminal/terminal_progress.ts";
import { sceneClasses } from "../data/datasets/draw_scene.ts";
import { openLabels } from "../data/datasets/coco_labels.ts";
import { listImages } from "../data/datasets/image_list.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { openSegmentation } from "../data/datasets/segmentation/open_segmentation.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { segmentationProbe } from "../pipeline/eval/segmentation_probe.ts";
import { frozenEncoder } from "../pipeline/inference/frozen_encoder.ts";
import { type Config, configure } from "../pipeline/pretrain/config.ts";
import { pretrain } from "../pipeline/pretrain/pretrain.ts";
import { latestCheckpoint } from "../pipeline/run/checkpoint_file.ts";
import { table } from "../pipeline/run/table.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "../pipeline/transfer/segmentation/config.ts";
import { SEGMENTATION } from "../pipeline/transfer/segmentation/task.ts";
import { transferSegmentation } from "../pipeline/transfer/segmentation/transfer.ts";
import { openWeights } from "../pipeline/weights/weights_file.ts";

const FOLDER = "runs/bench/transfer";
const SCENES = { train: 1000, val: 100, size: 128 };
const LABELLED = [10, 25, 100];

/** What differs from the demo's preset: it is pretrained for four times as long. */
const PRETRAINING = { epochs: 12, warmupEpoch: 0.5 } as const;

/** The recipe of all segmentors. */
const RECIPE = {
  dataset: "coco",
  labelKind: "pixelmaps",
  arch: "resnet18",
  width: 16,
  outputStride: 8,
  headChannels: 64,
  headDilation: 1,
  longSide: 512,
  shortSide: 128,
  cropSize: 128,
  batchSize: 8,
  iterations: 200,
  baseLr: 0.02,
  validateEvery: 200,
} as const satisfies Partial<SegmentationConfig>;

/** The recipe of the linear layers. */
const PROBE = { rate: 2, momentum: 0.9, weightDecay: 0, steps: 200, batch: 8 };

/** mIoU in per cent by what was trained, and on how many pictures: "from scratch, 25". */
type SeedScores = Readonly<Record<string, number>>;

const dataDir = join(FOLDER, "data");

/** The checkpoint of a network that has seen the scenes without their labels. */
const pretrained = Effect.gen(function* () {
  yield* makeScenes({ dir: dataDir, seed: 0, ...SCENES });
  const demo = yield* configure("demo");
  const outputDir = join(FOLDER, "pretrain");
  const config: Config = { ...demo, ...PRETRAINING, dataDir, outputDir, autoResume: true };
  yield* pretrain(config, yield* listImages(config));
  return (yield* latestCheckpoint(outputDir))!.file;
}).pipe(Effect.provide(layers.native), Effect.provide(layerReport()));

const runSeed = Effect.fnUntraced(
  function* (seed: number, weights: string) {
    const folder = join(FOLDER, `seed_${seed}`);
    const scores: Record<string, number> = {};
    for (const trainImages of LABELLED) {
      const labelled = { seed, trainImages };
      scores[`from scratch, ${trainImages}`] = yield* tuned(folder, { ...labelled, weights: "none" });
      scores[`pretrained, ${trainImages}`] = yield* tuned(folder, { ...labelled, weights });
      const [pretrained, untrained] = yield* probed({ ...labelled, weights });
      scores[`linear on random features, ${trainImages}`] = untrained;
      scores[`linear on pretrained features, ${trainImages}`] = pretrained;
    }
    return { seed, scores };
  },
  Effect.provide(layers.native),
  Effect.provide(layerReport()),
);

/** A run on few labelled pictures. */
interface Labelled {
  readonly seed: number;
  readonly trainImages: number;
  readonly weights: string;
}

/** The mIoU of a segmentor after its last step, in per cent. */
const tuned = Effect.fnUntraced(function* (folder: string, given: Labelled) {
  const name = `${given.weights === "none" ? "scratch" : "pretrained"}_${given.trainImages}`;
  const config: SegmentationConfig = {
    ...yield* SEGMENTATION_OPTIONS.configure(null),
    ...RECIPE,
    ...given,
    ...{ dataDir, outputDir: join(folder, name), autoResume: true },
  };
  const data = {
    train: yield* openSegmentation(config, "train"),
    val: yield* openSegmentation(config, "val"),
  };
  yield* transferSegmentation(config, data);
  return (yield* latestCheckpoint(config.outputDir, SEGMENTATION))!.meta.miou!;
});

/** The mIoU of linear layers on the cells of frozen features, pretrained and untrained, in per cent. */
const probed = Effect.fnUntraced(function* ({ seed, trainImages, weights }: Labelled) {
  const options = { ...RECIPE, dataDir, seed, trainImages, trainList: null, valList: null, classFile: null };
  const { samples } = yield* openSegmentation({ ...options, reduceZeroLabel: false }, "train");
  const chosen = new Set(samples.map(({ image }) => image));
  const labels = (split: "train" | "val") =>
    openLabels({ dataDir, split, kind: RECIPE.labelKind, coarse: false, objects: false });
  const [train, val] = [yield* labels("train"), yield* labels("val")];
  const encoder = yield* frozenEncoder(yield* openWeights(weights), "teacher");
  const shown = { seed, per: "cell", imageSize: RECIPE.cropSize, batch: PROBE.batch } as const;
  const { steps, batch, ...training } = PROBE;
  const { results } = yield* segmentationProbe({
    train: train.pictures.filter(({ file }) => chosen.has(file)),
    val: val.pictures,
    classes: train.classes.length,
    descriptors: (yield* comparedDescriptors(encoder, shown)).slice(0, 2),
    training: { ...training, seed, epochs: Math.ceil(steps * batch / trainImages) },
    imageSize: RECIPE.cropSize,
    maxBadImages: 0,
    batch,
  });
  return results.map(({ miou }) => 100 * miou);
}, Effect.scoped);

const spread = (values: readonly number[]): string => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = values.length < 2 ? "" : ` ± ${Math.sqrt(squares / (values.length - 1)).toFixed(1)}`;
  return `${mean.toFixed(1)}${deviation}`;
};

const seeds = Deno.args.length === 0 ? [0, 1, 2] : Deno.args.map(Number);
const results: { readonly seed: number; readonly scores: SeedScores }[] = [];
const weights = await Effect.runPromise(pretrained);
for (const seed of seeds) {
  results.push(await Effect.runPromise(runSeed(seed, weights)));
  const settings = { scenes: SCENES, pretraining: PRETRAINING, recipe: RECIPE, probe: PROBE };
  Deno.writeTextFileSync(
    `${FOLDER}.json`,
    `${JSON.stringify({ ...settings, results }, null, 2)}\n`,
  );
}
const methods = [...new Set(Object.keys(results[0].scores).map((name) => name.replace(/, \d+$/, "")))];
console.log(
  `\nmIoU in per cent on ${SCENES.val} scenes with ${sceneClasses.length} classes, seeds ${
    seeds.join(", ")
  }\n\n` +
    table([
      ["", ...LABELLED.map((count) => `${count} labelled pictures`)],
      ...methods.map((method) => [
        method,
        ...LABELLED.map((count) => spread(results.map(({ scores }) => scores[`${method}, ${count}`]))),
      ]),
    ]),
);
