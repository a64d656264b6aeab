/**
 * What the demo's recipe teaches about drawn scenes: `deno task bench:grouping [SEED...]`, seeds 0, 1 and 2 if none is given.
 *
 * For each seed, scenes are drawn, the demo's network is pretrained on train2017, and its slots are matched with the
 * classes and objects in val2017; so are those of the same network untrained, and clusters of colour and place (k-means),
 * as many as classes and as many as prototypes. Prints mean ± standard deviation over the seeds; every number is in
 * `runs/bench/grouping.json`. A seed takes some three minutes on two CPU cores. Run again, it goes on where it was stopped.
 */
import { join } from "node:path";
import { Effect } from "effect";
import { layerReport } from "../cli/terminal/terminal_progress.ts";
import { sceneClasses } from "../data/datasets/draw_scene.ts";
import { listImages } from "../data/datasets/image_list.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { colorClusters } from "../pipeline/eval/color_clusters.ts";
import { labelledPictures, type PictureScore, scorePictures } from "../pipeline/eval/labelled_pictures.ts";
import { slotMapper } from "../pipeline/inference/slot_program.ts";
import { type Config, configure, PRESETS } from "../pipeline/pretrain/config.ts";
import { pretrain } from "../pipeline/pretrain/pretrain.ts";
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { latestCheckpoint } from "../pipeline/run/checkpoint_file.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import type { StateValues } from "../pipeline/run/state_layout.ts";
import { table } from "../pipeline/run/table.ts";

const FOLDER = "runs/bench";
const SCENES = { train: 800, val: 150, size: 128 };
const CLASSES = sceneClasses.length;

interface SeedResult {
  readonly seed: number;
  readonly steps: number;
  readonly scores: Readonly<Record<string, PictureScore>>; // by what grouped the pixels
}

const runSeed = Effect.fnUntraced(function* (seed: number) {
  const outputDir = join(FOLDER, `grouping_${seed}`);
  const dataDir = join(outputDir, "data");
  const demo = yield* configure("demo");
  const config: Config = { ...demo, seed, dataDir, outputDir, autoResume: true };
  yield* makeScenes({ dir: dataDir, seed, ...SCENES });
  yield* pretrain(config, yield* listImages(config)).pipe(Effect.provide(layerReport()));
  const { meta, tensors } = (yield* latestCheckpoint(outputDir))!;

  const scenes = yield* labelledPictures(dataDir);
  const pictures = scenes.map(({ picture }) => picture);
  const score = (maps: readonly ArrayLike<number>[], slots: number) =>
    scorePictures(maps, scenes, { slots, classes: CLASSES });
  const scoreTeacher = Effect.fnUntraced(function* (teacher: StateValues) {
    const map = yield* slotMapper(config, teacher, { resize: SCENES.size, crop: SCENES.size, batch: 10 });
    return score((yield* map(pictures)).map(({ slots }) => slots), config.numPrototypes);
  }, Effect.scoped);
  const scoreClusters = (clusters: number) => score(colorClusters(pictures, { clusters, seed }), clusters);

  const untrained = initialState(stepGraph(config, (yield* Gpu).traits).state, seed);
  return {
    seed,
    steps: meta.step,
    scores: {
      [`${CLASSES} clusters of colour and place`]: scoreClusters(CLASSES),
      [`${config.numPrototypes} clusters of colour and place`]: scoreClusters(config.numPrototypes),
      [`${config.numPrototypes} slots, untrained`]: yield* scoreTeacher(untrained),
      [`${config.numPrototypes} slots, pretrained`]: yield* scoreTeacher(tensors),
    },
  } satisfies SeedResult as SeedResult;
}, Effect.provide(layers.native));

const MEASURES: readonly (readonly [string, (score: PictureScore) => number])[] = [
  ["mIoU", ({ matched }) => matched],
  ["accuracy", ({ accuracy }) => accuracy.matched],
  ["by majority: mIoU", ({ majority }) => majority],
  ["accuracy", ({ accuracy }) => accuracy.majority],
  ["foreground ARI", ({ foregroundAri }) => foregroundAri],
];

const spread = (values: readonly number[]): string => {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const deviation = values.length < 2 ? "" : ` ± ${Math.sqrt(squares / (values.length - 1)).toFixed(3)}`;
  return `${mean.toFixed(3)}${deviation}`;
};

const seeds = Deno.args.length === 0 ? [0, 1, 2] : Deno.args.map(Number);
const results: SeedResult[] = [];
for (const seed of seeds) {
  results.push(await Effect.runPromise(runSeed(seed)));
  Deno.writeTextFileSync(
    join(FOLDER, "grouping.json"),
    `${JSON.stringify({ scenes: SCENES, recipe: PRESETS.demo, results }, null, 2)}\n`,
  );
}
const names = Object.keys(results[0].scores);
console.log(
  `\n${SCENES.val} scenes, ${results[0].steps} steps, seeds ${seeds.join(", ")}\n\n` + table([
    ["", ...MEASURES.map(([title]) => title)],
    ...names.map((name) => [
      name,
      ...MEASURES.map(([, of]) => spread(results.map(({ scores }) => of(scores[name])))),
    ]),
  ]),
);
