import { basename } from "node:path";
import { Console, Effect, Option } from "effect";
import { Command } from "effect/cli";
import { openLabels } from "../../data/datasets/coco_labels.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import { evenly } from "../../pipeline/eval/described.ts";
import {
  evaluateGrouping,
  type GroupingEvaluation,
  type ShownGrouping,
} from "../../pipeline/eval/evaluate_grouping.ts";
import { table } from "../../pipeline/run/table.ts";
import { tinted } from "../../pipeline/visualize/tinted.ts";
import { teacherOf } from "../../pipeline/weights/teacher.ts";
import { openWeights } from "../../pipeline/weights/weights_file.ts";
import { bar, figure, gallery, html, image, pageOf, pageTable, swatch } from "../pages/page.ts";
import { bold } from "../terminal/color.ts";
import { doingNow, heardGpu } from "../terminal/doing.ts";
import { whatItIs } from "../terminal/weights_in_words.ts";
import { classColors, legend, mostPixels, shownSide, UNKNOWN } from "./classes.ts";
import {
  checkpointOperand,
  commonFlags,
  dataDirFlag,
  expectCommon,
  labelFlags,
  outputStrideFlag,
} from "./flags.ts";
import { andLeftOut, layerProgress, outputFiles, writeEvaluation } from "./output.ts";

export const grouping = Command.make(
  "grouping",
  {
    checkpoint: checkpointOperand,
    dataDir: dataDirFlag("val2017/*.jpg and annotations/, as COCO has them"),
    ...labelFlags,
    outputStride: outputStrideFlag,
    ...commonFlags,
  },
  Effect.fn(function* ({ checkpoint: file, ...flags }) {
    yield* expectCommon(flags);
    yield* doingNow(`Reading ${file} and ${flags.dataDir}`);
    const weights = yield* openWeights(file);
    const { model: own, values } = yield* teacherOf(weights);
    const model = { ...own, outputStride: Option.getOrElse(flags.outputStride, () => own.outputStride) };
    const imageSize = Option.getOrElse(flags.imageSize, () => own.imageSize);
    const labels = yield* openLabels({
      dataDir: flags.dataDir,
      split: "val",
      kind: Option.getOrNull(flags.labels),
      coarse: flags.supercategories,
      objects: true,
    });
    for (const warning of labels.warnings) yield* Console.error(`slotcon: ${warning}`);
    const files = yield* outputFiles(flags.output, file, "grouping");
    const labelled = evenly(labels.pictures, Option.getOrNull(flags.pictures));
    const evaluation = yield* evaluateGrouping({
      ...{ model, values, labelled, imageSize },
      classes: labels.classes.length,
      batch: Math.min(flags.batchSize, labelled.length),
      ...{ seed: flags.seed, maxBadImages: flags.maxBadImages },
    }).pipe(Effect.provide([heardGpu(layers[flags.device]), layerProgress]));

    const about = {
      evaluation: "grouping",
      checkpoint: file,
      is: whatItIs(weights),
      labels: labels.from,
      pictures: evaluation.pictures,
      picturesWithObjects: evaluation.picturesWithObjects,
      imageSize,
      seed: flags.seed,
      leftOut: [...labels.warnings, ...evaluation.leftOut],
    };
    const classes = classScores(evaluation, labels.classes);
    yield* Console.log(report(about, evaluation, classes));
    const results = evaluation.results.map(({ perClass: _, slotOf: __, classOf: ___, ...result }) => result);
    yield* writeEvaluation(
      files,
      { ...about, results, classes },
      yield* page(about, evaluation, classes, labels.classes),
    );
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Unsupervised semantic segmentation: how well the slots, which never saw a label, match the classes of pixels. Each " +
      "class is matched to one slot (Hungarian algorithm, for the highest mean IoU), and by majority to several. The " +
      "foreground ARI says how well slots tell the objects of a picture apart. Beside the checkpoint stand the same network " +
      "untrained, and k-means on colours and places with as many clusters as slots, and as classes.",
  ),
  Command.withShortDescription("Match slots to classes and objects: mIoU, accuracy, foreground ARI"),
  Command.withExamples([
    {
      command:
        "slotcon evaluate grouping runs/demo/checkpoints/step_000300.safetensors --data-dir runs/demo/data",
      description: "The demo's model on the demo's scenes",
    },
    {
      command:
        "slotcon evaluate grouping coco.pth --data-dir datasets/coco --supercategories --image-size 320",
      description: "COCO's 27 coarse classes, as they are usually scored",
    },
  ]),
);

interface About {
  readonly checkpoint: string;
  readonly is: string;
  readonly labels: string;
  readonly pictures: number;
  readonly picturesWithObjects: number;
  readonly imageSize: number;
}

/** A class that occurs, with the model's slot for it and the IoU by each method in the order of the results. */
interface ClassRow {
  readonly place: number;
  readonly name: string;
  readonly share: number; // of all labelled pixels
  readonly slot: number | null;
  readonly matched: readonly number[];
  readonly majority: readonly number[];
}

const classScores = ({ results }: GroupingEvaluation, names: readonly string[]): ClassRow[] => {
  const [own] = results;
  const all = own.perClass.reduce((sum, score) => sum + (score?.pixels ?? 0), 0);
  return names.flatMap((name, place) => {
    const score = own.perClass[place];
    return score === null ? [] : [{
      ...{ place, name },
      share: score.pixels / all,
      slot: own.slotOf[place] === -1 ? null : own.slotOf[place],
      matched: results.map(({ perClass }) => perClass[place]!.matched),
      majority: results.map(({ perClass }) => perClass[place]!.majority),
    }];
  }).sort((a, b) => b.share - a.share);
};

const shortNames = (results: GroupingEvaluation["results"]) =>
  results.map(({ slots }, i) => i === 0 ? "this" : i === 1 ? "untrained" : `k-means ${slots}`);

const HEAD = [
  ["", "", "matched", "matched", "majority", "majority", "foreground"],
  ["", "slots", "mIoU", "accuracy", "mIoU", "accuracy", "ARI"],
];

const report = (
  about: About,
  { results, leftOut }: GroupingEvaluation,
  classes: readonly ClassRow[],
): string => {
  const digits = (value: number | null) => value === null ? "-" : value.toFixed(3);
  const rows = results.map(({ method, slots, matched, majority, accuracy, foregroundAri }) => [
    method,
    String(slots),
    ...[matched, accuracy.matched, majority, accuracy.majority, foregroundAri].map(digits),
  ]);
  const shown = classes.slice(0, 30);
  return [
    `${bold(about.checkpoint)}: ${about.is}`,
    `${about.pictures} pictures with ${classes.length} classes, from ${about.labels}; ` +
    (about.picturesWithObjects === 0
      ? "none with several annotated objects"
      : `${about.picturesWithObjects} of them with several objects`) +
    andLeftOut(leftOut),
    "",
    table([...HEAD, ...rows]),
    "",
    table([
      ["IoU with one slot a class", "of all pixels", "slot", ...shortNames(results)],
      ...shown.map(({ name, share, slot, matched }) => [
        `  ${name}`,
        `${(100 * share).toFixed(1)} %`,
        slot === null ? "-" : String(slot),
        ...matched.map(digits),
      ]),
    ]),
    ...classes.length > shown.length ? [`  and ${classes.length - shown.length} rarer ones`] : [],
  ].join("\n");
};

const page = Effect.fnUntraced(function* (
  about: About,
  { results, best, worst, leftOut }: GroupingEvaluation,
  classes: readonly ClassRow[],
  names: readonly string[],
) {
  const [own] = results;
  const colors = classColors(classes.map(({ place }) => place), own.slots);
  const slotColors = Array.from(
    { length: own.slots },
    (_, slot) => colors.slot(own.slotOf.indexOf(slot), slot),
  );
  const show = ({ file, accuracy, foregroundAri, picture, slots, labels }: ShownGrouping) =>
    Effect.gen(function* () {
      const side = shownSide(picture.width);
      const truth = tinted(picture, labels, [UNKNOWN, ...names.map((_, place) => colors.of(place))]);
      return figure(
        [
          yield* image(picture, side, "the picture"),
          yield* image(tinted(picture, slots, slotColors), side, "its slots"),
          yield* image(truth, side, "its classes"),
        ],
        html`${basename(file)}: ${(100 * accuracy).toFixed(0)} % of the pixels${
          foregroundAri === null ? "" : `, foreground ARI ${foregroundAri.toFixed(2)}`
        }<br>${legend(mostPixels(labels), names, colors)}`,
      );
    });
  const value = (number: number | null) => number === null ? "–" : bar(Math.max(0, number));
  return pageOf({
    title: `Slots and classes: ${basename(about.checkpoint)}`,
    facts: [
      ["checkpoint", `${about.checkpoint}, ${about.is}`],
      ["labels", about.labels],
      [
        "pictures",
        `${about.pictures}, each at ${about.imageSize} × ${about.imageSize} pixels, ${about.picturesWithObjects} with several objects` +
        andLeftOut(leftOut),
      ],
    ],
    body: [
      html`
        <h2>Scores</h2>
        <p>1 is perfect. Matched: one slot a class. Majority: every slot stands for the class that it
        covers most of. Foreground ARI: how well slots tell the objects of a picture apart; 0 is chance.</p>
      `,
      pageTable(
        [
          ...["", "slots", "mIoU, matched", "accuracy, matched", "mIoU, majority", "accuracy, majority"],
          "foreground ARI",
        ],
        results.map(({ method, slots, matched, majority, accuracy, foregroundAri }) => [
          method,
          slots,
          ...[matched, accuracy.matched, majority, accuracy.majority, foregroundAri].map(value),
        ]),
      ),
      gallery(
        "Best",
        "Picture, slots, classes. A slot has the colour of the class that it is matched to.",
        yield* Effect.forEach(best, show),
      ),
      gallery("Worst", "", yield* Effect.forEach(worst, show)),
      html`
        <h2>Classes</h2>
        <p>IoU of each class that occurs.</p>
      `,
      pageTable(
        ["class", "of all pixels", "slot", ...shortNames(results), "this, majority"],
        classes.map(({ place, name, share, slot, matched, majority }) => [
          html`${swatch(colors.of(place))}${name}`,
          `${(100 * share).toFixed(2)} %`,
          slot ?? "–",
          ...[...matched, majority[0]].map(value),
        ]),
      ),
    ],
  });
});
