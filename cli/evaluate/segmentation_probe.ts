import { basename } from "node:path";
import { Console, Effect, Option } from "effect";
import { Command } from "effect/cli";
import { openLabels } from "../../data/datasets/coco_labels.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import { evenly } from "../../pipeline/eval/described.ts";
import {
  type SegmentationEvaluation,
  segmentationProbe as probe,
  type ShownSegmentation,
} from "../../pipeline/eval/segmentation_probe.ts";
import { frozenEncoder } from "../../pipeline/inference/frozen_encoder.ts";
import { table } from "../../pipeline/run/table.ts";
import { tinted } from "../../pipeline/visualize/tinted.ts";
import { openWeights } from "../../pipeline/weights/weights_file.ts";
import { whichFlag } from "../flags/common_flags.ts";
import { UsageError } from "../flags/usage_error.ts";
import { bar, figure, gallery, html, image, pageOf, pageTable, swatch } from "../pages/page.ts";
import { bold } from "../terminal/color.ts";
import { doingNow, heardGpu } from "../terminal/doing.ts";
import { whatItIs } from "../terminal/weights_in_words.ts";
import { classColors, legend, mostPixels, shownSide, UNKNOWN } from "./classes.ts";
import { comparedDescriptors } from "./compared_descriptors.ts";
import {
  checkpointOperand,
  commonFlags,
  dataDirFlag,
  expectCommon,
  expectTraining,
  labelFlags,
  outputStrideFlag,
  trainingFlags,
} from "./flags.ts";
import { andLeftOut, layerProgress, outputFiles, writeEvaluation } from "./output.ts";

export const segmentationProbe = Command.make(
  "segmentation-probe",
  {
    checkpoint: checkpointOperand,
    dataDir: dataDirFlag("train2017/*.jpg, val2017/*.jpg and annotations/, as COCO has them"),
    ...labelFlags,
    which: whichFlag,
    outputStride: outputStrideFlag,
    ...trainingFlags(10),
    ...commonFlags,
  },
  Effect.fn(function* ({ checkpoint: file, ...flags }) {
    yield* expectCommon(flags);
    yield* expectTraining(flags);
    yield* doingNow(`Reading ${file} and ${flags.dataDir}`);
    const weights = yield* openWeights(file);
    const encoder = yield* frozenEncoder(weights, flags.which);
    const imageSize = Option.getOrElse(flags.imageSize, () => encoder.imageSize);
    const labelsOf = (split: "train" | "val") =>
      openLabels({
        dataDir: flags.dataDir,
        split,
        kind: Option.getOrNull(flags.labels),
        coarse: flags.supercategories,
        objects: false,
      });
    const [trained, scored] = [yield* labelsOf("train"), yield* labelsOf("val")];
    const warnings = [...trained.warnings, ...scored.warnings];
    for (const warning of warnings) yield* Console.error(`slotcon: ${warning}`);
    if (trained.kind !== scored.kind || trained.classes.join("\n") !== scored.classes.join("\n")) {
      const found =
        `${trained.classes.length} of ${trained.from} and ${scored.classes.length} of ${scored.from}`;
      return yield* new UsageError({
        subject: "--data-dir",
        reason:
          `expected annotations of the same classes for train and val (--labels chooses which), found ${found}`,
      });
    }
    const most = Option.getOrNull(flags.pictures);
    const [train, val] = [evenly(trained.pictures, most), evenly(scored.pictures, most)];
    const files = yield* outputFiles(flags.output, file, "segmentation-probe");
    const { epochs, lr, momentum, weightDecay, seed } = flags;
    const stride = Option.getOrElse(flags.outputStride, () => 8 as const);
    const evaluation = yield* Effect.gen(function* () {
      const batch = Math.min(flags.batchSize, train.length);
      const shown = { seed, per: "cell", imageSize, batch, outputStride: stride } as const;
      return yield* probe({
        ...{ train, val, imageSize, batch },
        classes: scored.classes.length,
        descriptors: yield* comparedDescriptors(encoder, shown),
        training: { epochs, rate: lr, momentum, weightDecay, seed },
        maxBadImages: flags.maxBadImages,
      });
    }).pipe(Effect.provide([heardGpu(layers[flags.device]), layerProgress]), Effect.scoped);

    const about = {
      evaluation: "segmentation-probe",
      checkpoint: file,
      is: `${flags.which} of ${whatItIs(weights)}`,
      labels: [trained.from, scored.from],
      train: evaluation.used.train,
      val: evaluation.used.val,
      ...{ imageSize, outputStride: stride, epochs, lr, momentum, weightDecay, seed },
      leftOut: [...warnings, ...evaluation.used.leftOut],
    };
    const classes = classScores(evaluation, scored.classes);
    const digits = (value: number) => value.toFixed(3);
    const shown = classes.slice(0, 30);
    yield* Console.log([
      `${bold(file)}: ${about.is}`,
      `trained on ${about.train} pictures, scored on ${about.val} others with ${classes.length} classes, from ${scored.from}` +
      andLeftOut(evaluation.used.leftOut),
      "",
      table([
        ["a linear layer on", "mIoU", "accuracy", "training loss"],
        ...evaluation.results.map(({ method, miou, accuracy, loss }) => [
          method,
          ...[miou, accuracy, loss].map(digits),
        ]),
      ]),
      "",
      table([
        ["IoU", "of all pixels", "this", "untrained", "colour"],
        ...shown.map((
          { name, share, iou },
        ) => [`  ${name}`, `${(100 * share).toFixed(1)} %`, ...iou.map(digits)]),
      ]),
      ...classes.length > shown.length ? [`  and ${classes.length - shown.length} rarer ones`] : [],
    ].join("\n"));
    const results = evaluation.results.map(({ perClass: _, ...result }) => result);
    yield* writeEvaluation(
      files,
      { ...about, results, classes },
      yield* page(about, evaluation, classes, scored.classes),
    );
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Semantic segmentation by a linear layer (1 × 1 convolution) on the frozen encoder's feature maps, standardised, trained by " +
      "SGD on the cells of the maps and scored at the size of the picture. Beside the checkpoint stand the same encoder " +
      "untrained, and the colours and places of the cells.",
  ),
  Command.withShortDescription("Segment by a linear layer on frozen feature maps: mIoU, accuracy"),
  Command.withExamples([{
    command:
      "slotcon evaluate segmentation-probe coco.pth --data-dir datasets/coco --supercategories --pictures 10000",
    description: "COCO's 27 coarse classes, trained on 10,000 pictures",
  }]),
);

interface About {
  readonly checkpoint: string;
  readonly is: string;
  readonly labels: readonly string[];
  readonly train: number;
  readonly val: number;
  readonly imageSize: number;
  readonly outputStride: number;
  readonly epochs: number;
  readonly lr: number;
  readonly momentum: number;
  readonly weightDecay: number;
}

/** A class that occurs, with its IoU by each method in the order of the results. */
interface ClassRow {
  readonly place: number;
  readonly name: string;
  readonly share: number; // of all labelled pixels
  readonly iou: readonly number[];
}

const classScores = ({ results }: SegmentationEvaluation, names: readonly string[]): ClassRow[] => {
  const [{ perClass }] = results;
  const all = perClass.reduce((sum, score) => sum + (score?.pixels ?? 0), 0);
  return names.flatMap((name, place) => {
    const score = perClass[place];
    const iou = results.map(({ perClass }) => perClass[place]?.iou ?? 0);
    return score === null ? [] : [{ place, name, share: score.pixels / all, iou }];
  }).sort((a, b) => b.share - a.share);
};

const page = Effect.fnUntraced(function* (
  about: About,
  { results, best, worst, used }: SegmentationEvaluation,
  classes: readonly ClassRow[],
  names: readonly string[],
) {
  const colors = classColors(classes.map(({ place }) => place));
  const palette = names.map((_, place) => colors.of(place));
  const show = ({ file, accuracy, picture, found, labels }: ShownSegmentation) =>
    Effect.gen(function* () {
      const side = shownSide(picture.width);
      return figure(
        [
          yield* image(picture, side, "the picture"),
          yield* image(tinted(picture, found, palette), side, "what was found"),
          yield* image(tinted(picture, labels, [UNKNOWN, ...palette]), side, "its classes"),
        ],
        html`${basename(file)}: ${(100 * accuracy).toFixed(0)} % of the pixels<br>${
          legend(mostPixels(labels), names, colors)
        }`,
      );
    });
  return pageOf({
    title: `Linear segmentation: ${basename(about.checkpoint)}`,
    facts: [
      ["checkpoint", `${about.checkpoint}, ${about.is}`],
      ["labels", about.labels.join(" and ")],
      ["pictures", `trained on ${about.train}, scored on ${about.val}${andLeftOut(used.leftOut)}`],
      [
        "shown at",
        `${about.imageSize} × ${about.imageSize} pixels, a cell of features every ${about.outputStride}`,
      ],
      [
        "training",
        `${about.epochs} epochs, learning rate ${about.lr}, momentum ${about.momentum}, weight decay ${about.weightDecay}`,
      ],
    ],
    body: [
      html`
        <h2>Scores</h2>
        <p>Mean intersection over union of the classes that occur, and the share of the pixels that get
        their class; 1 is perfect.</p>
      `,
      pageTable(
        ["a linear layer on", "mIoU", "accuracy", "training loss"],
        results.map((
          { method, miou, accuracy, loss },
        ) => [method, bar(miou), bar(accuracy), loss.toFixed(3)]),
      ),
      gallery("Best", "Picture, what was found, its classes.", yield* Effect.forEach(best, show)),
      gallery("Worst", "", yield* Effect.forEach(worst, show)),
      html`
        <h2>Classes</h2>
        <p>IoU of each class that occurs.</p>
      `,
      pageTable(
        ["class", "of all pixels", ...results.map(({ method }) => method)],
        classes.map(({ place, name, share, iou }) => [
          html`${swatch(colors.of(place))}${name}`,
          `${(100 * share).toFixed(2)} %`,
          ...iou.map(bar),
        ]),
      ),
    ],
  });
});
