/** Where the labels of an image for semantic segmentation come from, and reading them: one class a pixel. */
import { Effect } from "effect";
import { readRegularFile } from "../../files/regular_file.ts";
import { type PngSamples, readPngSamples } from "../../images/png.ts";
import { release } from "../../images/release.ts";
import type { Size } from "../../images/resize.ts";
import { LabelError } from "../coco_annotations.ts";
import { type CocoSource, expectSize, readCocoPlaces } from "../coco_labels.ts";

/** The label of pixels that count nowhere. */
export const IGNORED = 255;
/** Labels are bytes, of which `IGNORED` is no class. */
export const MOST_CLASSES = 255;

/** Where the labels of an image come from: plain data, which can be posted to a worker. */
export type LabelSource =
  | {
    /** A PNG whose pixels are numbers or, where `colors` are given, colours. */
    readonly kind: "map";
    /** The file. */
    readonly file: string;
    /** What its numbers mean. */
    readonly values: LabelValues;
    /** The class, or `IGNORED`, of each colour r | g << 8 | b << 16; null where colours mean nothing. */
    readonly colors: ReadonlyMap<number, number> | null;
  }
  | {
    /** Annotations of COCO's formats. */
    readonly kind: "coco";
    /** The annotations of the image. */
    readonly source: CocoSource;
    /** The class of each category, by its place + 1; `UNKNOWN` where there is none. */
    readonly values: LabelValues;
  };

/** What stored numbers mean. */
export interface LabelValues {
  /** By number: the class, `IGNORED`, or `UNKNOWN`. Larger numbers are unknown. */
  readonly classes: Int16Array;
  /** The numbers that mean something, in words: "0 to 20, or 255 where nothing is labelled". */
  readonly expected: string;
}

/** What a number means that is no class: an error. */
export const UNKNOWN = -1;

/** Numbers as they are stored: classes from 0, or from 1 where 0 means nothing; 255 is ignored. */
export const storedNumbers = (count: number, reduceZero: boolean): LabelValues => {
  const first = Number(reduceZero);
  const classes = new Int16Array(256).fill(UNKNOWN);
  for (let i = 0; i < count; i++) classes[i + first] = i;
  classes[IGNORED] = IGNORED;
  if (reduceZero) classes[0] = IGNORED;
  const ignored = reduceZero ? "0 or 255" : "255";
  return { classes, expected: `${first} to ${count - 1 + first}, or ${ignored} where nothing is labelled` };
};

/**
 * The labels of an image of the size `picture`: the class of each pixel, or `IGNORED`, [H, W]. Fails with a `LabelError`
 * where they are of another size, hold what is no class (the value and its place), or cannot be read.
 */
export const readLabels: (
  source: LabelSource,
  picture: Size & { readonly name: string },
) => Effect.Effect<Uint8Array<ArrayBuffer>, LabelError> = Effect.fnUntraced(function* (source, picture) {
  if (source.kind === "coco") {
    const { categories } = yield* readCocoPlaces(source.source, picture);
    return yield* classesOf(source.source.from, categories, source.values, picture.width);
  }
  const map = yield* readMap(source.file);
  yield* expectSize(source.file, picture.name, map, picture);
  const { channels, samples, width } = map;
  if (channels >= 3) return yield* lookedByColor(source, map);
  const numbers = channels === 1 ? samples : samples.filter((_, i) => i % channels === 0); // without alpha
  return yield* classesOf(source.file, numbers, source.values, width);
});

const LARGEST_MAP = 2 ** 30; // bytes

const readMap = (path: string): Effect.Effect<PngSamples, LabelError> =>
  Effect.tryPromise({
    try: async () => {
      const bytes = await readRegularFile(path, { largest: LARGEST_MAP });
      const map = readPngSamples(bytes);
      release(bytes);
      return map;
    },
    catch: (error) => new LabelError({ subject: path, reason: (error as Error).message }),
  });

/** The classes of stored numbers, [H, W], in place where these are bytes; `subject` is the file, for errors. */
export const classesOf = (
  subject: string,
  numbers: Uint8Array | Uint16Array,
  { classes, expected }: LabelValues,
  width: number,
): Effect.Effect<Uint8Array<ArrayBuffer>, LabelError> => {
  const labels = (numbers instanceof Uint8Array ? numbers : new Uint8Array(numbers.length)) as Uint8Array<
    ArrayBuffer
  >;
  const count = classes.length;
  for (let i = 0; i < numbers.length; i++) {
    const value = numbers[i];
    const label = value < count ? classes[value] : UNKNOWN;
    if (label < 0) {
      const reason = `its label ${value} at ${
        placeOf(i, width)
      } is none of its classes: expected ${expected}`;
      return Effect.fail(new LabelError({ subject, reason }));
    }
    labels[i] = label;
  }
  return Effect.succeed(labels);
};

const lookedByColor = (
  { file, colors }: Extract<LabelSource, { kind: "map" }>,
  { samples, channels, width }: PngSamples,
): Effect.Effect<Uint8Array<ArrayBuffer>, LabelError> => {
  const refuse = (reason: string) => Effect.fail(new LabelError({ subject: file, reason }));
  if (colors === null) {
    return refuse(
      `it holds colours, expected numbers of classes: save a grey or palette PNG, or give the classes their colours`,
    );
  }
  const labels = new Uint8Array(samples.length / channels);
  let last = -1, label = 0; // neighbours are mostly of one colour
  for (let i = 0, at = 0; i < labels.length; i++, at += channels) {
    const color = samples[at] | samples[at + 1] << 8 | samples[at + 2] << 16;
    if (color !== last) {
      const found = colors.get(color);
      if (found === undefined) {
        const shown = `(${samples[at]}, ${samples[at + 1]}, ${samples[at + 2]})`;
        return refuse(`its colour ${shown} at ${placeOf(i, width)} is that of none of its classes`);
      }
      [last, label] = [color, found];
    }
    labels[i] = label;
  }
  return Effect.succeed(labels);
};

const placeOf = (i: number, width: number) => `column ${i % width}, row ${Math.floor(i / width)}`;
