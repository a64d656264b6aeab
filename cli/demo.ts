import { join } from "node:path";
import { Console, Effect } from "effect";
import { Command, Flag } from "effect/cli";
import { sceneClasses } from "../data/datasets/draw_scene.ts";
import { listImages } from "../data/datasets/image_list.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { writeWholeFile } from "../data/files/write_whole_file.ts";
import { Gpu } from "../ops/runtime/gpu.ts";
import { colorClusters } from "../pipeline/eval/color_clusters.ts";
import { type LabelledPicture, labelledPictures, scorePictures } from "../pipeline/eval/labelled_pictures.ts";
import { slotMapper } from "../pipeline/inference/slot_program.ts";
import { planSchedule } from "../pipeline/optim/schedule.ts";
import {
  type Config,
  configure,
  type OptionName,
  OPTIONS,
  PRESETS,
  PRETRAIN_OPTIONS,
} from "../pipeline/pretrain/config.ts";
import { pretrain } from "../pipeline/pretrain/pretrain.ts";
import { stepGraph } from "../pipeline/pretrain/step_graph.ts";
import { PRETRAIN } from "../pipeline/pretrain/task.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { latestCheckpoint } from "../pipeline/run/checkpoint_file.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { flagName } from "../pipeline/run/option_name.ts";
import type { StateValues } from "../pipeline/run/state_layout.ts";
import { table } from "../pipeline/run/table.ts";
import { distinctColors } from "../pipeline/visualize/colors.ts";
import { sheet } from "../pipeline/visualize/sheet.ts";
import { tinted } from "../pipeline/visualize/tinted.ts";
import { demoReport } from "./demo/report.ts";
import { deviceFlag } from "./flags/common_flags.ts";
import { UsageError } from "./flags/usage_error.ts";
import { doingNow, heardGpu } from "./terminal/doing.ts";
import { layerReport } from "./terminal/terminal_progress.ts";

const SCENES = { train: 800, val: 150, size: 128 };
const CLASSES = sceneClasses.length;
const SHOWN = 8; // pictures in slots.png

export const demo = Command.make(
  "demo",
  {
    outputDir: Flag.String("output-dir").pipe(
      Flag.withMetavar("PATH"),
      Flag.withDescription("folder for the pictures, the run and its result"),
      Flag.withDefault<string>(PRESETS.demo.outputDir),
    ),
    seed: Flag.Int("seed").pipe(
      Flag.withDescription("seed of the pictures, the initial weights and all random draws"),
      Flag.withDefault(0),
    ),
    steps: Flag.Int("steps").pipe(
      Flag.withDescription("stop after this many steps"),
      Flag.withDefault<number | null>(null),
    ),
    device: deviceFlag,
  },
  Effect.fn(function* (flags) {
    const config = yield* demoConfig(flags);
    yield* expectSameRun(config);
    yield* Console.log(`Scenes: ${SCENES.train} to train on and ${SCENES.val} others, in ${config.dataDir}`);
    yield* doingNow("Drawing scenes");
    yield* makeScenes({ dir: config.dataDir, seed: config.seed, ...SCENES });

    yield* Effect.gen(function* () {
      const trained = yield* train(config);
      yield* Console.log("\nNow the scenes that were not trained on");
      yield* doingNow("Grouping them by slots, and by colour and place alone");
      const scenes = yield* labelledPictures(config.dataDir);
      const untrained = initialState(stepGraph(config, (yield* Gpu).traits).state, config.seed);
      const before = yield* group(config, untrained, scenes);
      const after = yield* group(config, trained.tensors, scenes);
      const picture = join(config.outputDir, "slots.png");
      const sheet = yield* draw(scenes.slice(0, SHOWN), [before, after]);
      yield* writeWholeFile(picture, [sheet]);

      const rows = [
        ["colour and place alone (k-means)", groupByColor(scenes, config.seed)],
        ["slots before training", before.score],
        [`slots after ${trained.meta.step} steps`, after.score],
      ] as const;
      const titles = ["one slot a kind", "several slots a kind", "objects"];
      const valuesOf = (
        { matched, majority, foregroundAri }: typeof before.score,
      ) => [matched, majority, foregroundAri];
      const scores = rows.map(([name, score]) => ({ name, values: valuesOf(score) }));
      const { file: report, loss } = yield* demoReport(config, { titles, scores, sheet });
      yield* Console.log(
        `\nHow well do they match the ${CLASSES} kinds of things drawn (mean IoU), and the objects of each scene ` +
          `(foreground ARI)? 1 is perfect:\n\n` +
          table([
            ["", ...titles],
            ...scores.map(({ name, values }) => [`  ${name}`, ...values.map((value) => value.toFixed(3))]),
          ]) +
          `\n\nThe loss fell from ${loss}.\n\n` +
          [
            [report, "all of this on a page, with curves"],
            [picture, "from the top: scenes, slots before, slots after, the truth"],
            [join(config.outputDir, "metrics.jsonl"), "every step in numbers; log.txt: the same in words"],
            [trained.file, "what was learned"],
          ].map(([file, what]) => `  ${file}\n      ${what}\n`).join("") +
          `\nNext, your own pictures:\n` +
          `  slotcon pretrain --dataset Folder --data-dir ~/photos --output-dir runs/photos --arch resnet18 ` +
          `--batch-size 32 --epochs 50`,
      );
    }).pipe(Effect.provide(heardGpu(rankGpu(config))));
  }),
).pipe(
  Command.withDescription(
    "See the method learn, in minutes and on any machine: draw scenes, pretrain a small network on them without labels, " +
      "and show what its slots take together before and after. Run again, it goes on where it was stopped.",
  ),
  Command.withShortDescription("Draw scenes, pretrain a small network on them, show its slots"),
);

type Flags = Pick<Config, "outputDir" | "seed" | "steps" | "device">;

const demoConfig = (flags: Flags) => {
  const given = { ...flags, dataDir: join(flags.outputDir, "data") };
  const entries = Object.entries(given) as [OptionName, unknown][];
  return configure("demo", new Map(entries.map(([name, value]) => [name, { value, where: `--${name}` }])));
};

/** Fails where the output folder holds another run, such as a demo with another seed: it would be resumed. */
const expectSameRun = Effect.fnUntraced(function* (config: Config) {
  const { outputDir } = config;
  const found = yield* latestCheckpoint(outputDir, PRETRAIN);
  if (found === null) return;
  const [name] = PRETRAIN_OPTIONS.names.filter((name) =>
    OPTIONS[name].affects === "numbers" && found.meta.config[name] !== config[name]
  );
  if (name === undefined) return;
  const what = name === "seed" ? "a demo" : "another run,";
  const reason = `"${outputDir}" holds ${what} with --${flagName(name)} ${found.meta.config[name]}, not ${
    config[name]
  }`;
  return yield* new UsageError({ subject: "--output-dir", reason, remedy: "name another" });
});

/** Pretrains, or resumes a run that was stopped; the last checkpoint. */
const train = Effect.fnUntraced(function* (config: Config) {
  const images = yield* listImages(config);
  const { totalSteps } = planSchedule({ ...config, world: 1, instances: images.length });
  const present = yield* latestCheckpoint(config.outputDir);
  if (present !== null && present.meta.step >= Math.min(totalSteps, config.steps ?? Infinity)) {
    yield* Console.log(
      `Pretrained already, as ${present.file} shows; to start again, delete ${config.outputDir}`,
    );
    return present;
  }
  yield* pretrain({ ...config, autoResume: true }, images).pipe(Effect.provide(layerReport()));
  return (yield* latestCheckpoint(config.outputDir))!;
});

/** The slot maps of scenes by a teacher, and how well they match the classes. */
const group = Effect.fnUntraced(function* (
  config: Config,
  teacher: StateValues,
  scenes: readonly LabelledPicture[],
) {
  const map = yield* slotMapper(config, teacher, { resize: SCENES.size, crop: SCENES.size, batch: 10 });
  const maps = (yield* map(scenes.map(({ picture }) => picture))).map(({ slots }) => slots);
  return { maps, score: score(maps, scenes, config.numPrototypes) };
}, Effect.scoped);

const groupByColor = (scenes: readonly LabelledPicture[], seed: number) =>
  score(
    colorClusters(scenes.map(({ picture }) => picture), { clusters: CLASSES, seed }),
    scenes,
    CLASSES,
  );

const score = (maps: readonly ArrayLike<number>[], scenes: readonly LabelledPicture[], slots: number) =>
  scorePictures(maps, scenes, { slots, classes: CLASSES });

/**
 * Draws a row of scenes, a row of slot maps for each grouping, and a row of true classes. A class has the same colour in
 * all rows, and so has the slot that is matched to it.
 */
const draw = (
  scenes: readonly LabelledPicture[],
  groupings: readonly Effect.Success<ReturnType<typeof group>>[],
) => {
  const slots = PRESETS.demo.numPrototypes;
  const colors = distinctColors(CLASSES + slots);
  const tint = (segments: (scene: number) => ArrayLike<number>, palette: typeof colors) =>
    scenes.map(({ picture }, i) => tinted(picture, segments(i), palette));
  return sheet([
    scenes.map(({ picture }) => picture),
    ...groupings.map(({ maps, score: { slotOf } }) => {
      const own = Array.from({ length: slots }, (_, k) => colors[slotOf.indexOf(k)] ?? colors[CLASSES + k]);
      return tint((i) => maps[i], own);
    }),
    tint((i) => scenes[i].labels.map((label) => label - 1), colors),
  ]);
};
