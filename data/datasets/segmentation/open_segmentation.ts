/**
 * Opens a data set for semantic segmentation. Five layouts are known:
 *
 *     voc         VOCdevkit/VOC2012: lists in ImageSets/Segmentation, train followed by aug
 *     cityscapes  leftImg8bit/{train,val}/<city>, gtFine/…_gtFine_labelTrainIds.png or …_labelIds.png
 *     ade20k      ADEChallengeData2016/{images,annotations}/{training,validation}
 *     masks       one's own: {images,labels}/{train,val}, {train,val}/{images,labels}, or images and labels with lists
 *     coco        annotations of COCO's formats (coco_labels.ts)
 */
import { basename, dirname, join } from "node:path";
import { Effect } from "effect";
import { match } from "ts-pattern";
import { exists } from "../../files/exists.ts";
import { readRegularFile, systemReason } from "../../files/regular_file.ts";
import { permutation } from "../../random/random.ts";
import type { LabelError } from "../coco_annotations.ts";
import { openLabels, type Split } from "../coco_labels.ts";
import { PICTURE, visibleEntries } from "../image_list.ts";
import { LARGEST_LIST } from "../path_list.ts";
import { classColor, readClassFile } from "./class_file.ts";
import { IGNORED, type LabelValues, MOST_CLASSES, storedNumbers, UNKNOWN } from "./label_source.ts";
import { CITYSCAPES_TRAIN_IDS, publishedClasses } from "./published.ts";
import {
  type SegmentationClass,
  type SegmentationSample,
  type SegmentationSet,
  SegmentationSetError,
  type SegmentationSetOptions,
} from "./segmentation_set.ts";

/**
 * Opens a split of a data set. Images without labels are left out, with a warning. Fails with a `SegmentationSetError`
 * where the layout is another, the split is empty, nothing is labelled or the file of classes is wrong, and with a
 * `LabelError` where annotations are.
 */
export const openSegmentation: (
  options: SegmentationSetOptions,
  split: Split,
) => Effect.Effect<SegmentationSet, SegmentationSetError | LabelError> = Effect.fn("openSegmentation")(
  function* (options, split) {
    const opened: Effect.Effect<SegmentationSet, SegmentationSetError | LabelError> = match(options.dataset)
      .with("voc", () => voc(options, split))
      .with("cityscapes", () => cityscapes(options, split))
      .with("ade20k", () => ade20k(options, split))
      .with("masks", () => masks(options, split))
      .with("coco", () => coco(options, split))
      .exhaustive();
    const set = yield* opened;
    return split === "train" && options.trainImages !== null
      ? { ...set, samples: yield* drawn(options, set.samples) }
      : set;
  },
);

const refuse = (subject: string, reason: string) => new SegmentationSetError({ subject, reason });

/** The word of a random key that tells this draw from the others of a seed. */
const SUBSET = 9;

/** As many samples as are wanted, which the seed chooses, in the data set's order. */
const drawn = (
  { dataDir, trainImages, seed }: SegmentationSetOptions,
  samples: readonly SegmentationSample[],
): Effect.Effect<readonly SegmentationSample[], SegmentationSetError> => {
  const count = trainImages!;
  if (count > samples.length) {
    const reason = `${count} training pictures are wanted, it has ${samples.length} with labels`;
    return Effect.fail(refuse(dataDir, reason));
  }
  const chosen = permutation(samples.length, seed, SUBSET).subarray(0, count).sort();
  return Effect.succeed(Array.from(chosen, (i) => samples[i]));
};

// --- Published data sets ---

const voc = Effect.fnUntraced(function* ({ dataDir }: SegmentationSetOptions, split: Split) {
  const root = yield* rootOf(dataDir, ["", "VOC2012", "VOCdevkit/VOC2012"], "ImageSets/Segmentation");
  const list = (name: string) => join(root, "ImageSets", "Segmentation", `${name}.txt`);
  const listed = Effect.fnUntraced(function* (name: string, labels: string) {
    const ids = yield* linesOf(list(name));
    const there = new Set(yield* filesBelow(join(root, labels)));
    return ids.map((id): Pair => ({
      name: id,
      image: join(root, "JPEGImages", `${id}.jpg`),
      label: join(root, labels, `${id}.png`),
      isLabelled: there.has(`${id}.png`),
    }));
  });
  const pairs = yield* listed(split, "SegmentationClass");
  const warnings: string[] = [];
  if (split === "train") {
    if (exists(list("aug"))) pairs.push(...yield* listed("aug", "SegmentationClassAug"));
    else warnings.push(`"${list("aug")}" is missing: the published runs train on its pictures, too`);
  }
  const classes = publishedClasses("voc");
  const set = yield* setOf(pairs, { root, classes, values: storedNumbers(classes.length, false) });
  return { ...set, warnings: [...warnings, ...set.warnings] };
});

const cityscapes = Effect.fnUntraced(function* ({ dataDir }: SegmentationSetOptions, split: Split) {
  const root = yield* rootOf(dataDir, ["", "cityscapes"], "leftImg8bit");
  const images = join(root, "leftImg8bit", split), labels = join(root, "gtFine", split);
  const suffix = "_leftImg8bit.png";
  const names = (yield* filesBelow(images)).filter((path) => path.endsWith(suffix))
    .map((path) => path.slice(0, -suffix.length));
  const there = new Set(yield* filesBelow(labels));
  const kind = names.some((name) => there.has(`${name}_gtFine_labelTrainIds.png`))
    ? "labelTrainIds"
    : "labelIds";
  const classes = publishedClasses("cityscapes");
  const pairs = names.map((name): Pair => {
    const label = `${name}_gtFine_${kind}.png`;
    return {
      name,
      image: join(images, `${name}${suffix}`),
      label: join(labels, label),
      isLabelled: there.has(label),
    };
  });
  const values = kind === "labelIds" ? trainIds() : storedNumbers(classes.length, false);
  return yield* setOf(pairs, { root: images, classes, values });
});

/** The numbers of the download; what is not in the table is ignored. */
const trainIds = (): LabelValues => {
  const classes = new Int16Array(256).fill(IGNORED);
  for (const [id, label] of CITYSCAPES_TRAIN_IDS) classes[id] = label;
  return { classes, expected: "0 to 255" };
};

const ade20k = Effect.fnUntraced(function* ({ dataDir }: SegmentationSetOptions, split: Split) {
  const root = yield* rootOf(dataDir, ["", "ADEChallengeData2016"], "annotations");
  const folder = split === "train" ? "training" : "validation";
  const classes = publishedClasses("ade20k");
  const pairs = yield* pairsIn(join(root, "images", folder), join(root, "annotations", folder));
  return yield* setOf(pairs, {
    root: join(root, "images", folder),
    classes,
    values: storedNumbers(classes.length, true),
  });
});

// --- One's own label maps ---

const masks = Effect.fnUntraced(function* (options: SegmentationSetOptions, split: Split) {
  const { dataDir, reduceZeroLabel } = options;
  if (!exists(dataDir)) return yield* refuse(dataDir, "there is no such folder");
  const { classes, colors } = yield* readClassFile(options.classFile ?? join(dataDir, "classes.yaml"));
  const list = split === "train" ? options.trainList : options.valList;
  const layouts = list !== null
    ? [["images", "labels"]]
    : [[`images/${split}`, `labels/${split}`], [`${split}/images`, `${split}/labels`]];
  const found = layouts.find(([images]) => exists(join(dataDir, images)));
  if (found === undefined) {
    const lookedFor = layouts.map(([images, labels]) => `${images}/ and ${labels}/`).join(", or ");
    const isParted = exists(join(dataDir, "images", "train")) || exists(join(dataDir, "images", "val"));
    const remedy = list === null && exists(join(dataDir, "images")) && !isParted
      ? "; pictures that lie in images/ itself need lists (--train-list, --val-list)"
      : "";
    return yield* refuse(dataDir, `looked for ${lookedFor} in it, and found neither${remedy}`);
  }
  const [images, labels] = found.map((folder) => join(dataDir, folder));
  const all = yield* pairsIn(images, labels);
  const pairs = list === null ? all : yield* listed(list, all);
  const values = storedNumbers(classes.length, reduceZeroLabel);
  return yield* setOf(pairs, { root: list ?? images, classes, values, colors });
});

/** The pairs that a list names, each by its path inside of the images' folder, with or without suffix. */
const listed = Effect.fnUntraced(function* (list: string, pairs: readonly Pair[]) {
  const known = new Map<string, Pair>();
  for (const pair of pairs.toReversed()) {
    known.set(pair.name, pair);
    known.set(`${pair.name}${suffixOf(pair.image)}`, pair);
  }
  const found: Pair[] = [];
  for (const line of yield* linesOf(list)) {
    const pair = known.get(line.replace(/^\.?\//, "")) ?? known.get(line.replace(/^(\.?\/)?images\//, ""));
    if (pair === undefined) return yield* refuse(list, `it names "${line}", which is no picture in images/`);
    found.push(pair);
  }
  return found;
});

// --- COCO's annotations ---

const coco = Effect.fnUntraced(function* ({ dataDir, labelKind }: SegmentationSetOptions, split: Split) {
  const { kind, from, classes: all, named, labelOf, pictures, warnings } = yield* openLabels({
    dataDir,
    split,
    kind: labelKind,
    coarse: false,
    objects: false,
  });
  // Objects lie before a background; elsewhere a pixel without a category is one that nobody labelled.
  const names = kind === "instances" ? ["background", ...named] : named;
  if (named.length === 0 || names.length > MOST_CLASSES) {
    const reason = named.length === 0
      ? "nothing names its categories: looked for panoptic, stuff or instances annotations in annotations/"
      : `it has ${names.length} classes, at most ${MOST_CLASSES} are possible`;
    return yield* refuse(from, reason);
  }
  const numbers = new Map(names.map((name, i) => [name, i]));
  const classes = Int16Array.from(labelOf, (label) => numbers.get(all[label - 1]) ?? UNKNOWN);
  classes[0] = kind === "instances" ? 0 : IGNORED;
  const values = { classes, expected: "the numbers of categories that its annotations name" };
  const first = names[0] === "background" ? 0 : 1; // the palette's first colour is black
  return {
    classes: names.map((name, i) => ({ name, color: classColor(i + first) })),
    samples: pictures.map(({ file, source }) => ({
      name: withoutSuffix(basename(file)),
      image: file,
      labels: Effect.map(source, (source) => ({ kind: "coco" as const, source, values })),
    })),
    warnings,
  } satisfies SegmentationSet as SegmentationSet;
});

// --- Files ---

/** An image and its label map. */
interface Pair {
  readonly name: string;
  readonly image: string;
  readonly label: string;
  readonly isLabelled: boolean; // whether the label map is there
}

/** A set of images with label maps; those without are left out. */
const setOf = (
  pairs: readonly Pair[],
  { root, classes, values, colors = null }: {
    readonly root: string; // what names the pictures, for errors
    readonly classes: readonly SegmentationClass[];
    readonly values: LabelValues;
    readonly colors?: ReadonlyMap<number, number> | null;
  },
): Effect.Effect<SegmentationSet, SegmentationSetError> => {
  if (pairs.length === 0) return Effect.fail(refuse(root, "it has no pictures"));
  const missing = pairs.filter(({ isLabelled }) => !isLabelled);
  const first = missing.length === 0
    ? ""
    : `the first, "${missing[0].image}", has none at "${missing[0].label}"`;
  if (missing.length === pairs.length) {
    return Effect.fail(refuse(root, `none of its ${pairs.length} pictures has a label map: ${first}`));
  }
  const samples = pairs.filter(({ isLabelled }) => isLabelled).map(({ name, image, label }) => ({
    name,
    image,
    labels: Effect.succeed({ kind: "map" as const, file: label, values, colors }),
  }));
  const warnings = missing.length === 0
    ? []
    : [`${missing.length} of ${pairs.length} pictures have no label map and are left out: ${first}`];
  return Effect.succeed({ classes, samples, warnings });
};

/** The first of some folders that has what every data set of a layout has. */
const rootOf = (
  dataDir: string,
  candidates: readonly string[],
  landmark: string,
): Effect.Effect<string, SegmentationSetError> => {
  const found = candidates.map((folder) => join(dataDir, folder)).find((root) =>
    exists(join(root, landmark))
  );
  if (found !== undefined) return Effect.succeed(found);
  const lookedFor = candidates.map((folder) => join(folder, landmark)).join(", ");
  return Effect.fail(refuse(dataDir, `looked for ${lookedFor} in it, and found none`));
};

/** The pictures of a folder, each with the label map at the same path in another, which is a PNG. */
const pairsIn = Effect.fnUntraced(function* (images: string, labels: string) {
  const pictures = (yield* filesBelow(images)).filter((path) => PICTURE.test(path));
  const maps = new Set(yield* filesBelow(labels));
  return pictures.map((path): Pair => {
    const name = withoutSuffix(path);
    const label = [`${name}.png`, `${name}.PNG`].find((path) => maps.has(path)) ?? `${name}.png`;
    return { name, image: join(images, path), label: join(labels, label), isLabelled: maps.has(label) };
  });
});

/** The paths of all files below a folder, relative to it, in order. */
const filesBelow = Effect.fnUntraced(function* (root: string) {
  const seen = new Set<string>(); // links can lead back up
  const attempt = <A>(folder: string, read: () => Promise<A>) =>
    Effect.tryPromise({ try: read, catch: (error) => refuse(join(root, folder), systemReason(error)) });
  const below = (folder: string): Effect.Effect<readonly string[], SegmentationSetError> =>
    Effect.gen(function* () {
      const path = join(root, folder);
      const real = yield* attempt(folder, () => Deno.realPath(path));
      if (seen.has(real)) return [];
      seen.add(real);
      const entries = yield* attempt(folder, () => visibleEntries(path));
      const lists = yield* Effect.forEach(entries, ({ name, isDirectory }) => {
        const path = folder === "" ? name : `${folder}/${name}`;
        return isDirectory ? below(path) : Effect.succeed([path]);
      });
      return lists.flat();
    });
  return (yield* below("")).toSorted();
});

const suffixOf = (path: string) => path.slice(withoutSuffix(path).length);
const withoutSuffix = (path: string) =>
  join(dirname(path), basename(path).replace(/\.[^.]*$/, "")).replace(/^\.\//, "");

/** The lines of a list, without empty ones. */
const linesOf = (path: string) =>
  Effect.tryPromise({
    try: () => readRegularFile(path, { largest: LARGEST_LIST }),
    catch: (error) => refuse(path, (error as Error).message),
  }).pipe(
    Effect.map((bytes) => new TextDecoder().decode(bytes).split(/\r?\n/)),
    Effect.map((lines) => lines.map((line) => line.trim()).filter((line) => line !== "")),
    Effect.filterOrFail((lines) => lines.length > 0, () => refuse(path, "it lists no pictures")),
  );
