/**
 * The evaluations by classification. They compare an encoder with the same one untrained and with colour histograms, on
 * images in a folder for each class, and show scores and the images that were classified with most confidence.
 */
import { basename } from "node:path";
import { Console, Effect, Option, type Scope } from "effect";
import { type ClassFolders, classFolders } from "../../data/datasets/class_folders.ts";
import { readPicture } from "../../data/images/decode_image.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import type {
  ClassificationScore,
  ClassifiedPicture,
  UsedImages,
} from "../../pipeline/eval/classification.ts";
import { evenly } from "../../pipeline/eval/described.ts";
import type { NamedDescriptor } from "../../pipeline/inference/descriptors.ts";
import { evaluationFrame, type Frame } from "../../pipeline/inference/framed.ts";
import { frozenEncoder } from "../../pipeline/inference/frozen_encoder.ts";
import { table } from "../../pipeline/run/table.ts";
import type { Which } from "../../pipeline/weights/encoder.ts";
import { openWeights } from "../../pipeline/weights/weights_file.ts";
import { bar, figure, gallery, html, image, pageOf, pageTable, thumbnail } from "../pages/page.ts";
import { bold } from "../terminal/color.ts";
import { doingNow, heardGpu } from "../terminal/doing.ts";
import { whatItIs } from "../terminal/weights_in_words.ts";
import { comparedDescriptors } from "./compared_descriptors.ts";
import { type CommonValues, expectCommon } from "./flags.ts";
import { andLeftOut, layerProgress, outputFiles, writeEvaluation } from "./output.ts";

/** An evaluation by classification: what it computes, and how it is described. */
export interface Classification<Result, Picture, Failure> {
  readonly name: string;
  readonly title: string; // of the page
  /** Options that the JSON file records. */
  readonly options: Readonly<Record<string, number>>;
  /** Computes scores, and how the evaluated encoder classifies the images of `val`. */
  readonly evaluate: (shown: {
    readonly folders: ClassFolders;
    readonly descriptors: readonly NamedDescriptor[];
    readonly frame: Frame;
    readonly batch: number;
    readonly maxBadImages: number;
  }) => Effect.Effect<
    {
      readonly used: UsedImages;
      readonly results: readonly Result[];
      readonly pictures: readonly Picture[];
    },
    Failure,
    Gpu | Scope.Scope
  >;
  /** Says what the images of both splits are used for. */
  readonly use: (
    pictures: { readonly train: number; readonly val: number; readonly classes: number },
  ) => string;
  /** Further facts at the top of the page. */
  readonly facts: readonly (readonly [string, string])[];
  /** Completes "Share of the pictures whose class …". */
  readonly shares: string;
  /** Titles of the columns; the first one holds the method. */
  readonly titles: readonly string[];
  /** The other columns of a row: shares from 0 to 1 as numbers, all else as text. */
  readonly scores: (result: Result) => readonly (number | string)[];
  /** Training images to show beside a classified one. */
  readonly neighbours: (picture: Picture) => readonly string[];
}

/**
 * Runs an evaluation by classification on a file of weights, prints its scores, and writes its JSON file and its page. Fails
 * before any work is done where a flag is wrong, an input is missing or the output cannot be written.
 */
export const classify = Effect.fn("classify")(function* <
  Result extends ClassificationScore & { readonly method: string },
  Picture extends ClassifiedPicture,
  Failure,
>(
  file: string,
  flags: CommonValues & { readonly which: Which; readonly dataDir: string },
  { name, title, options, evaluate, use, facts, shares, titles, scores, neighbours }: Classification<
    Result,
    Picture,
    Failure
  >,
) {
  yield* expectCommon(flags);
  yield* doingNow(`Reading ${file} and ${flags.dataDir}`);
  const weights = yield* openWeights(file);
  const encoder = yield* frozenEncoder(weights, flags.which);
  const imageSize = Option.getOrElse(flags.imageSize, () => encoder.imageSize);
  const folders = thinned(yield* classFolders(flags.dataDir), Option.getOrNull(flags.pictures));
  const { classes, val } = folders;
  const files = yield* outputFiles(flags.output, file, name);

  const { used, results, pictures } = yield* Effect.gen(function* () {
    const batch = Math.min(flags.batchSize, val.length);
    const shown = { seed: flags.seed, per: "picture", imageSize, batch } as const;
    const descriptors = yield* comparedDescriptors(encoder, shown);
    const { maxBadImages } = flags;
    return yield* evaluate({ folders, descriptors, frame: evaluationFrame(imageSize), batch, maxBadImages });
  }).pipe(Effect.provide([heardGpu(layers[flags.device]), layerProgress]), Effect.scoped);

  const about = {
    evaluation: name,
    checkpoint: file,
    is: `${flags.which} of ${whatItIs(weights)}`,
    data: flags.dataDir,
    classCount: classes.length,
    train: used.train,
    val: used.val,
    imageSize,
    ...options,
    leftOut: used.leftOut,
  };
  const purpose = use({ ...used, classes: classes.length }) + andLeftOut(used.leftOut);
  const inTable = (score: number | string) => typeof score === "number" ? score.toFixed(3) : score;
  const rows = results.map((result) => [result.method, ...scores(result).map(inTable)]);
  yield* Console.log(`${bold(file)}: ${about.is}\n${purpose}\n\n${table([titles, ...rows])}`);

  const accuracies = classAccuracies(classes, pictures);
  const chance = (1 / classes.length).toFixed(3);
  const onPage = (score: number | string) => typeof score === "number" ? bar(score) : score;
  const page = pageOf({
    title: `${title}: ${basename(file)}`,
    facts: [
      ["checkpoint", `${file}, ${about.is}`],
      ["data", `${about.data}: ${purpose}`],
      ["shown at", `${imageSize} × ${imageSize} pixels`],
      ...facts,
    ],
    body: [
      html`
        <h2>Scores</h2>
        <p>Share of the pictures whose class ${shares}. Chance is ${chance} for the first.</p>
      `,
      pageTable(titles, results.map((result) => [result.method, ...scores(result).map(onPage)])),
      ...yield* surestPictures(classes, pictures, neighbours),
      html`<h2>Classes</h2>`,
      pageTable(
        ["class", "pictures", "top-1"],
        accuracies.map(({ name, pictures, top1 }) => [name, pictures, bar(top1)]),
      ),
    ],
  });
  const numbers = { ...about, results, classes: accuracies, pictures: namedPictures(classes, pictures) };
  yield* writeEvaluation(files, numbers, page);
});

/** At most `most` images of each split, evenly spaced in it. */
const thinned = ({ classes, train, val }: ClassFolders, most: number | null): ClassFolders => ({
  classes,
  train: evenly(train, most),
  val: evenly(val, most),
});

/** The accuracy of each class that has images. */
const classAccuracies = (classes: readonly string[], pictures: readonly ClassifiedPicture[]) => {
  const all = classes.map((name) => ({ name, pictures: 0, right: 0 }));
  for (const { label, ranked } of pictures) {
    all[label].pictures++;
    if (ranked[0]?.label === label) all[label].right++;
  }
  return all.filter(({ pictures }) => pictures > 0)
    .map(({ right, ...rest }) => ({ ...rest, top1: right / rest.pictures }));
};

/** Classified images with the names of their classes, for the JSON file. */
const namedPictures = (classes: readonly string[], pictures: readonly ClassifiedPicture[]) =>
  pictures.map(({ file, label, ranked: [{ label: found, share }] }) => ({
    file,
    class: classes[label],
    found: classes[found],
    share: Number(share.toFixed(4)),
  }));

const SHOWN = 8;
const SIDE = 160, SMALL = 78;

/** The images that were classified right and wrong with most confidence, each with others (`othersOf`) beside it. */
const surestPictures = Effect.fnUntraced(function* <Picture extends ClassifiedPicture>(
  classes: readonly string[],
  pictures: readonly Picture[],
  othersOf: (picture: Picture) => readonly string[],
) {
  const sure = pictures.toSorted((a, b) => b.ranked[0].share - a.ranked[0].share);
  const isRight = ({ ranked, label }: Picture) => ranked[0].label === label;
  const show = (picture: Picture) =>
    Effect.gen(function* () {
      const { file, label, ranked: [{ label: found, share }] } = picture;
      const own = yield* image(thumbnail(yield* readPicture(file), SIDE), SIDE, "the picture");
      const others = yield* Effect.forEach(
        othersOf(picture),
        (other) =>
          Effect.flatMap(
            readPicture(other),
            (neighbour) => image(thumbnail(neighbour, SMALL), SMALL, "a neighbour"),
          ),
      );
      const verdict = found === label
        ? html`<b>${classes[label]}</b>`
        : html`<b>${classes[label]}</b>, taken for <b>${classes[found]}</b>`;
      return figure(
        others.length === 0 ? [own] : [own, html`<div class="small">${others}</div>`],
        html`${verdict} (${(100 * share).toFixed(0)} %)<br>${basename(file)}`,
      );
    });
  const shown = (chosen: readonly Picture[]) => Effect.forEach(chosen.slice(0, SHOWN), show);
  const neighbours = pictures.some((picture) => othersOf(picture).length > 0)
    ? "The small pictures are the nearest of those that vote."
    : "";
  return [
    gallery("Surest, and right", neighbours, yield* shown(sure.filter(isRight))),
    gallery("Surest, and wrong", "", yield* shown(sure.filter((picture) => !isRight(picture)))),
  ];
});
