/** What evaluations by classification show: scores, and the pictures that were surest right and surest wrong. */
import { basename } from "node:path";
import { Effect, Option } from "effect";
import { type ClassFolders, classFolders } from "../../data/datasets/class_folders.ts";
import { readPicture } from "../../data/images/decode_image.ts";
import type { ClassifiedPicture } from "../../pipeline/eval/classification.ts";
import { evenly } from "../../pipeline/eval/described.ts";
import {
  cellColors,
  colorHistograms,
  encoderDescriptor,
  type NamedDescriptor,
} from "../../pipeline/inference/descriptors.ts";
import {
  type FrozenEncoder,
  frozenEncoder,
  untrainedEncoder,
} from "../../pipeline/inference/frozen_encoder.ts";
import type { EncoderOptions } from "../../pipeline/model/resnet.ts";
import type { Which } from "../../pipeline/weights/encoder.ts";
import { openWeights } from "../../pipeline/weights/weights_file.ts";
import { bar, figure, gallery, type Html, html, image, pageTable, thumbnail } from "../pages/page.ts";
import { whatItIs } from "../terminal/weights_in_words.ts";
import { outputFiles } from "./output.ts";

/**
 * How an evaluation by classification begins: with the encoder, the pictures and the files to write, and what is said of
 * them. Fails where one of them cannot be had, before any work is done.
 */
export const begin = Effect.fnUntraced(function* (
  evaluation: string,
  file: string,
  flags: {
    readonly which: Which;
    readonly dataDir: string;
    readonly imageSize: Option.Option<number>;
    readonly pictures: Option.Option<number>;
    readonly output: Parameters<typeof outputFiles>[0];
  },
) {
  const weights = yield* openWeights(file);
  const encoder = yield* frozenEncoder(weights, flags.which);
  const imageSize = Option.getOrElse(flags.imageSize, () => encoder.imageSize);
  const folders = thinned(yield* classFolders(flags.dataDir), Option.getOrNull(flags.pictures));
  const files = yield* outputFiles(flags.output, file, evaluation);
  const about = {
    evaluation,
    checkpoint: file,
    is: `${flags.which} of ${whatItIs(weights)}`,
    data: flags.dataDir,
    classCount: folders.classes.length,
    train: folders.train.length,
    val: folders.val.length,
    imageSize,
  };
  return { encoder, imageSize, folders, files, about };
});

/** The encoder in question, the same untrained, and colours. */
export const descriptorsOf = Effect.fnUntraced(function* (
  { values, options }: FrozenEncoder,
  { seed, per, ...shown }: {
    readonly seed: number;
    readonly per: "picture" | "cell";
    readonly imageSize: number;
    readonly batch: number;
    readonly outputStride?: EncoderOptions["outputStride"];
  },
) {
  const strided = { ...options, outputStride: shown.outputStride ?? options.outputStride };
  const own = yield* encoderDescriptor({ values, options: strided }, { ...shown, per });
  const untrained = yield* encoderDescriptor(untrainedEncoder(strided, seed), { ...shown, per });
  const colors = per === "picture"
    ? { method: "colour histograms", descriptor: colorHistograms(shown.imageSize) }
    : { method: "colour and place", descriptor: cellColors(shown.imageSize, own.grid) };
  return [
    { method: "this encoder", descriptor: own },
    { method: "the same untrained", descriptor: untrained },
    colors,
  ] satisfies NamedDescriptor[] as NamedDescriptor[];
});

/** At most `most` pictures of each split, evenly. */
const thinned = ({ classes, train, val }: ClassFolders, most: number | null): ClassFolders => ({
  classes,
  train: evenly(train, most),
  val: evenly(val, most),
});

/** Per class, how many of its pictures are ranked first as what they are. */
export const classAccuracies = (classes: readonly string[], pictures: readonly ClassifiedPicture[]) => {
  const all = classes.map((name) => ({ name, pictures: 0, right: 0 }));
  for (const { label, ranked } of pictures) {
    all[label].pictures++;
    if (ranked[0]?.label === label) all[label].right++;
  }
  return all.filter(({ pictures }) => pictures > 0)
    .map(({ right, ...rest }) => ({ ...rest, top1: right / rest.pictures }));
};

export const classTable = (accuracies: ReturnType<typeof classAccuracies>): Html =>
  html`<h2>Classes</h2>${
    pageTable(
      ["class", "pictures", "top-1"],
      accuracies.map(({ name, pictures, top1 }) => [name, pictures, bar(top1)]),
    )
  }`;

/** Pictures with their classes by name, for the numbers' file. */
export const namedPictures = (classes: readonly string[], pictures: readonly ClassifiedPicture[]) =>
  pictures.map(({ file, label, ranked: [{ label: found, share }] }) => ({
    file,
    class: classes[label],
    found: classes[found],
    share: Number(share.toFixed(4)),
  }));

const SHOWN = 8;
const SIDE = 160, SMALL = 78;

/** The pictures that were surest right and surest wrong, with others beside them (the nearest neighbours). */
export const surestPictures = Effect.fnUntraced(function* <Picture extends ClassifiedPicture>(
  classes: readonly string[],
  pictures: readonly Picture[],
  othersOf: (picture: Picture) => readonly string[],
) {
  const sure = pictures.toSorted((a, b) => b.ranked[0].share - a.ranked[0].share);
  const isRight = ({ ranked, label }: Picture) => ranked[0].label === label;
  const show = (picture: Picture) =>
    Effect.gen(function* () {
      const { file, label, ranked: [{ label: found, share }] } = picture;
      const own = yield* image(yield* thumbnail(yield* readPicture(file), SIDE), SIDE, "the picture");
      const others = yield* Effect.forEach(othersOf(picture), (other) =>
        Effect.gen(function* () {
          return yield* image(yield* thumbnail(yield* readPicture(other), SMALL), SMALL, "a neighbour");
        }));
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
