import { basename } from "node:path";
import { Console, Effect, Option } from "effect";
import { Command } from "effect/cli";
import { openSegmentation } from "../../data/datasets/segmentation/open_segmentation.ts";
import type { SegmentationSet } from "../../data/datasets/segmentation/segmentation_set.ts";
import { readUpright } from "../../data/images/decode_image.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import { evenly } from "../../pipeline/eval/described.ts";
import { scaled, scaledMap } from "../../pipeline/inference/scaled.ts";
import { table } from "../../pipeline/run/table.ts";
import {
  evaluateSegmentor,
  type SegmentorEvaluation,
  type ShownPrediction,
} from "../../pipeline/transfer/segmentation/evaluate.ts";
import { percent } from "../../pipeline/transfer/segmentation/scores.ts";
import type { SavedSegmentor } from "../../pipeline/transfer/segmentation/weights.ts";
import type { Color } from "../../pipeline/visualize/colors.ts";
import { tinted } from "../../pipeline/visualize/tinted.ts";
import { openWeights } from "../../pipeline/weights/weights_file.ts";
import { labelMapFlags, segmentorFlags, segmentorFrom } from "../flags/segmentor_flags.ts";
import { expectWithin, UsageError } from "../flags/usage_error.ts";
import { bar, figure, gallery, type Html, html, image, pageOf, pageTable, swatch } from "../pages/page.ts";
import { bold } from "../terminal/color.ts";
import { heardGpu } from "../terminal/doing.ts";
import { whatItIs } from "../terminal/weights_in_words.ts";
import { UNKNOWN } from "./classes.ts";
import { checkpointOperand, commonFlags, dataDirFlag } from "./flags.ts";
import { layerProgress, outputFiles, writeEvaluation } from "./output.ts";

export const segmentation = Command.make(
  "segmentation",
  {
    checkpoint: checkpointOperand,
    dataDir: dataDirFlag("the data set, whose validation pictures are scored"),
    ...labelMapFlags,
    ...segmentorFlags,
    output: commonFlags.output,
    pictures: commonFlags.pictures,
    maxBadImages: commonFlags.maxBadImages,
    device: commonFlags.device,
  },
  Effect.fn(function* ({ checkpoint: file, dataDir, output, pictures, maxBadImages, device, ...flags }) {
    yield* expectWithin({
      pictures: [Option.getOrNull(pictures), 1],
      "max-bad-images": [maxBadImages, 0, 1],
    });
    const weights = yield* openWeights(file);
    const saved = yield* segmentorFrom(weights, {
      ...flags,
      ...{ dataDir: Option.some(dataDir), maxBadImages: Option.some(maxBadImages) },
    });
    const set = yield* openSegmentation(saved.config, "val");
    for (const warning of [...set.warnings, ...yield* classDifferences(saved, set, dataDir)]) {
      yield* Console.error(`slotcon: ${warning}`);
    }
    const samples = evenly(set.samples, Option.getOrNull(pictures));
    const files = yield* outputFiles(output, file, "segmentation");
    const { config } = saved;
    const about = {
      evaluation: "segmentation",
      checkpoint: file,
      is: whatItIs(weights),
      data: dataDir,
      dataset: config.dataset,
      pictures: samples.length,
      testMode: config.testMode,
      ...config.testMode === "windows"
        ? { cropSize: config.cropSize, windowStride: config.windowStride }
        : {},
      longSide: config.longSide,
      shortSide: config.shortSide,
    };

    const evaluation = yield* evaluateSegmentor(saved, { samples }).pipe(
      Effect.provide([heardGpu(layers[device]), layerProgress]),
    );
    yield* Console.log(inTerminal(about, evaluation, set));
    yield* writeEvaluation(files, numbers(about, evaluation, set), yield* page(about, evaluation, set));
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Score a segmentor on labelled pictures: pixels with the right class (aAcc), mean intersection over union (mIoU) and mean " +
      "accuracy of the classes (mAcc), each at the pictures' original size, counted over the whole data set before dividing. " +
      "Reads checkpoints of slotcon transfer segmentation, and mmsegmentation's of the same networks.",
  ),
  Command.withShortDescription("Score a segmentor: aAcc, mIoU, mAcc, each class"),
  Command.withExamples([
    {
      command:
        "slotcon evaluate segmentation runs/voc/checkpoints/best.safetensors --data-dir datasets/VOCdevkit",
      description: "The best checkpoint of a run on PASCAL VOC",
    },
    {
      command:
        "slotcon evaluate segmentation iter_90000.pth --recipe cityscapes --data-dir datasets/cityscapes --test-mode whole",
      description: "One of mmsegmentation's, on whole pictures instead of windows",
    },
  ]),
);

/**
 * Sentences on how the classes of a segmentor differ from those of a data set. Fails with a `UsageError` where their numbers
 * do.
 */
const classDifferences = Effect.fnUntraced(function* (
  { classes }: SavedSegmentor,
  set: SegmentationSet,
  dataDir: string,
) {
  if (classes.length !== set.classes.length) {
    return yield* new UsageError({
      subject: "--data-dir",
      reason: `"${dataDir}" has ${set.classes.length} classes, the segmentor ${classes.length}`,
      remedy: "score it on the classes that it was trained on (--dataset says how they are stored)",
    });
  }
  const other = classes.findIndex(({ name }, i) => name !== `class ${i}` && name !== set.classes[i].name);
  return other < 0 ? [] : [
    `Class ${other} is "${set.classes[other].name}" in the data set, and "${
      classes[other].name
    }" in the segmentor`,
  ];
});

interface About {
  readonly checkpoint: string;
  readonly is: string;
  readonly data: string;
  readonly dataset: string;
  readonly pictures: number;
  readonly testMode: string;
  readonly cropSize?: number;
  readonly windowStride?: number;
  readonly longSide: number;
  readonly shortSide: number;
}

/** A class with its score; those that are neither labelled nor predicted have none. */
const classRows = ({ scores: { perClass } }: SegmentorEvaluation, { classes }: SegmentationSet) => {
  const all = perClass.reduce((sum, { labelled }) => sum + labelled, 0);
  return perClass.map((score, i) => ({ ...classes[i], ...score, share: score.labelled / all }));
};

const inTerminal = (about: About, evaluation: SegmentorEvaluation, set: SegmentationSet): string => {
  const { scores, images, leftOut } = evaluation;
  const rows = classRows(evaluation, set).map(({ name, share, iou, accuracy }) => [
    ...[name, `${percent(share)}`, percent(iou), percent(accuracy)],
  ]);
  return [
    `${bold(about.checkpoint)}: ${about.is}`,
    `scored on ${images.length} pictures of ${about.data}${
      leftOut.length > 0 ? `, ${leftOut.length} left out` : ""
    }, ${shownHow(about)}; all in per cent`,
    "",
    table([["aAcc", "mIoU", "mAcc"], [scores.aAcc, scores.mIoU, scores.mAcc].map(percent)]),
    "",
    table([["class", "of all pixels", "IoU", "Acc"], ...rows]),
  ].join("\n");
};

const shownHow = ({ testMode, cropSize, windowStride, longSide, shortSide }: About): string =>
  `resized to at most ${longSide} × ${shortSide} pixels, ` +
  (testMode === "whole" ? "as a whole" : `in windows of ${cropSize} pixels, one every ${windowStride}`);

/** What the JSON file holds: shares from 0 to 1, counts of pixels, null for 0/0. */
const numbers = (about: About, evaluation: SegmentorEvaluation, set: SegmentationSet) => {
  const { scores: { aAcc, mIoU, mAcc }, confusion: { counts, classes: K }, images, leftOut } = evaluation;
  return {
    ...about,
    ...{ aAcc, mIoU, mAcc },
    classes: classRows(evaluation, set).map(({ color: _, share: __, ...row }) => row),
    confusion: Array.from({ length: K }, (_, c) => [...counts.subarray(c * K, (c + 1) * K)]),
    images, // NaN, which JSON has not, becomes null
    ...leftOut.length > 0 ? { leftOut } : {},
  };
};

// --- The page ---

/** Longest side of a picture on the page, in pixels. */
const SIDE = 280;
/** Confusions that are listed. */
const LISTED = 20;

const page = Effect.fnUntraced(function* (
  about: About,
  evaluation: SegmentorEvaluation,
  set: SegmentationSet,
) {
  const { scores, images, leftOut } = evaluation;
  const palette = [...set.classes.map(({ color }) => color)];
  const colors: Color[] = Array.from({ length: 256 }, (_, c) => palette[c] ?? UNKNOWN);
  const show = (shown: ShownPrediction) => shownPicture(shown, colors, set);
  return pageOf({
    title: `Segmentation: ${basename(about.checkpoint)}`,
    facts: [
      ["checkpoint", `${about.checkpoint}, ${about.is}`],
      ["data", `${about.data} (${about.dataset})`],
      [
        "pictures",
        `${images.length}${leftOut.length > 0 ? `, ${leftOut.length} that cannot be read left out` : ""}`,
      ],
      ["shown", shownHow(about)],
    ],
    body: [
      html`
        <h2>Scores</h2>
        <p>Share of the labelled pixels with the right class (aAcc), mean intersection over union (mIoU) and mean
        share of a class's pixels that get it (mAcc), in per cent, at the pictures' original size.</p>
      `,
      pageTable(["aAcc", "mIoU", "mAcc"], [[scores.aAcc, scores.mIoU, scores.mAcc].map(percent)]),
      gallery(
        "Worst pictures",
        "Picture, its classes, what was predicted. Grey: not labelled.",
        yield* Effect.forEach(evaluation.worst, show),
      ),
      gallery("Best pictures", "", yield* Effect.forEach(evaluation.best, show)),
      html`
        <h2>Classes</h2>
        <p>IoU and accuracy of each class; – where it is 0/0, which the means leave out.</p>
      `,
      pageTable(
        ["class", "of all pixels", "IoU", "Acc"],
        classRows(evaluation, set).map(({ name, color, share, iou, accuracy }) => [
          html`${swatch(color)}${name}`,
          `${percent(share)} %`,
          ...[iou, accuracy].map((value) => value === null ? "–" : bar(value)),
        ]),
      ),
      ...confusions(evaluation, set),
    ],
  });
});

const shownPicture = Effect.fnUntraced(function* (
  { file, aAcc, mIoU, labels, predictions }: ShownPrediction,
  colors: readonly Color[],
  set: SegmentationSet,
) {
  const whole = yield* readUpright(file);
  const scale = Math.min(1, SIDE / Math.max(whole.width, whole.height));
  const width = Math.max(1, Math.round(whole.width * scale)),
    height = Math.max(1, Math.round(whole.height * scale));
  const picture = yield* scaled(whole, { width, height });
  const [truth, found] = [labels, predictions].map((map) =>
    tinted(picture, scaledMap(map, whole, { width, height }), colors)
  );
  const shown = Math.max(width, Math.min(SIDE, 160)); // small ones are enlarged
  return figure(
    [
      yield* image(picture, shown, "the picture"),
      yield* image(truth, shown, "its classes"),
      yield* image(found, shown, "what was predicted"),
    ],
    html`${basename(file)}: ${percent(aAcc)} % of the pixels, mIoU ${percent(mIoU)}<br>${
      legend(labels, colors, set)
    }`,
  );
});

/** The classes that cover most of a label map, at most six. */
const legend = (labels: Uint8Array, colors: readonly Color[], { classes }: SegmentationSet): Html[] => {
  const counts = new Float64Array(classes.length);
  for (const label of labels) if (label < classes.length) counts[label]++;
  return [...counts.keys()].filter((c) => counts[c] > 0).sort((a, b) => counts[b] - counts[a]).slice(0, 6)
    .map((c) => html`<span>${swatch(colors[c])}${classes[c].name}</span>`);
};

/** The most frequent confusions of two classes. */
const confusions = (
  { confusion: { counts, classes: K }, scores }: SegmentorEvaluation,
  set: SegmentationSet,
): Html[] => {
  const name = (c: number) => html`${swatch(set.classes[c].color)}${set.classes[c].name}`;
  const most = Array.from(counts.keys()).filter((i) => counts[i] > 0 && Math.floor(i / K) !== i % K)
    .sort((a, b) => counts[b] - counts[a]).slice(0, LISTED);
  return most.length === 0 ? [] : [
    html`
      <h2>Confusions</h2>
      <p>The classes that are most often taken for others, by pixels; the whole matrix is in the JSON file.</p>
    `,
    pageTable(
      ["class", "taken for", "pixels", "of the class"],
      most.map((i) => {
        const label = Math.floor(i / K);
        return [
          name(label),
          name(i % K),
          counts[i],
          `${percent(counts[i] / scores.perClass[label].labelled)} %`,
        ];
      }),
    ),
  ];
};
