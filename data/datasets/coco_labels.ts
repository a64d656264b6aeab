/**
 * What is where in the images of a data set in COCO's layout: the class of every pixel, and which object it belongs to.
 *
 * Five kinds of annotations say so, and each is a file or folder that COCO or COCO-Stuff publishes:
 *
 *     panoptic     annotations/panoptic_val2017.json and annotations/panoptic_val2017/*.png   things and stuff, objects
 *     stuffthing   stuffthingmaps/val2017/*.png                                               things and stuff
 *     pixelmaps    annotations/stuff_val2017_pixelmaps/*.png                                  stuff (drawn scenes: all)
 *     stuff        annotations/stuff_val2017.json                                             stuff
 *     instances    annotations/instances_val2017.json                                         things, objects
 *
 * Objects come from the panoptic or the instance annotations, whatever the classes come from. Objects marked as a crowd
 * are none, but their pixels have a class.
 */
import { basename, join, parse } from "node:path";
import { Effect, Result } from "effect";
import { match } from "ts-pattern";
import { exists } from "../files/exists.ts";
import { isObject, shown } from "../files/format_error.ts";
import { readRegularFile, systemReason } from "../files/regular_file.ts";
import { fillSpans, segmentationSpans, type Spans, spansArea } from "../formats/coco_mask.ts";
import { type PngSamples, readPngSamples } from "../images/png.ts";
import type { Size } from "../images/resize.ts";
import {
  type AnnotatedPicture,
  type Annotations,
  categoriesIn,
  type Category,
  LabelError,
  openAnnotations,
} from "./coco_annotations.ts";
import { sceneClasses } from "./draw_scene.ts";
import { visibleEntries } from "./image_list.ts";

/** All kinds of annotations, in the order in which they are looked for. */
export const LABEL_KINDS: readonly LabelKind[] = [
  "panoptic",
  "stuffthing",
  "pixelmaps",
  "stuff",
  "instances",
];
/** A kind of annotations. */
export type LabelKind = "panoptic" | "stuffthing" | "pixelmaps" | "stuff" | "instances";

/** A part of a data set: to train on, or to validate with. */
export type Split = "train" | "val";

export interface LabelMap {
  readonly width: number;
  readonly height: number;
  readonly labels: Uint16Array; // [H, W], place in `classes` + 1; 0 where nobody knows
  readonly objects: Uint16Array | null; // [H, W], 1 … for each object, 0 elsewhere; null without annotations of objects
}

export interface LabelledFile {
  readonly file: string; // the image
  readonly from: string; // the file or folder that its classes come from
  /**
   * Reads the labels of the image, whose size is given. Fails where they are of another size, before they take memory.
   */
  readonly read: (picture: Size) => Effect.Effect<LabelMap, LabelError>;
}

export interface AnnotatedFile extends LabelledFile {
  /** What `readCocoPlaces` reads, as plain data, which a worker can be sent. */
  readonly source: Effect.Effect<CocoSource, LabelError>;
}

/** The annotations of an image. */
export type CocoSource = CocoMapSource | CocoMaskSource | CocoPanopticSource;

/** What annotations of any kind have. */
export interface CocoNamedSource {
  /** The file that an error is about. */
  readonly from: string;
  /** The name of the image. */
  readonly name: string;
}

/** A PNG with a category's number in every pixel. */
export interface CocoMapSource extends CocoNamedSource {
  /** Tells it from other annotations. */
  readonly kind: "map";
  /** By the value of a pixel: the place of its category + 1, 0 for none. */
  readonly numbers: Uint16Array;
}

/** Masks, each of a category. */
export interface CocoMaskSource extends CocoNamedSource {
  /** Tells it from other annotations. */
  readonly kind: "masks";
  /** The size of the masks. */
  readonly size: Size;
  /** Polygons or run lengths, and the place of their category + 1. */
  readonly masks: readonly {
    readonly title: string;
    readonly segmentation: unknown;
    readonly category: number;
    readonly isCrowd: boolean;
  }[];
}

/** A PNG with a segment's number in every pixel. */
export interface CocoPanopticSource extends CocoNamedSource {
  /** Tells it from other annotations. */
  readonly kind: "panoptic";
  /** The size of the map. */
  readonly size: Size;
  /** The map's file. */
  readonly map: string;
  /** By segment: the place of its category + 1, and its object's number; 0: none. */
  readonly segments: ReadonlyMap<number, readonly [category: number, object: number]>;
}

export interface Labels {
  readonly kind: LabelKind;
  readonly from: string; // the file or folder that the classes come from
  readonly classes: readonly string[]; // by name
  readonly named: readonly string[]; // those that a file names; the others are "class 7"
  readonly labelOf: Uint16Array; // by place in the categories + 1: place in `classes` + 1, 0 for 0
  readonly pictures: readonly AnnotatedFile[];
  /** What was left out of the annotations, for whoever relies on the numbers: sentences. */
  readonly warnings: readonly string[];
}

export interface LabelOptions {
  readonly dataDir: string;
  readonly split: Split;
  /** Null: the first kind that is there, in the order of `LABEL_KINDS`. */
  readonly kind: LabelKind | null;
  /** Classes are COCO's supercategories (27 for all of COCO-Stuff) instead of the categories themselves. */
  readonly coarse: boolean;
  /** Whether objects are wanted, too. */
  readonly objects: boolean;
}

/**
 * Opens the labels of a split. Fails with a `LabelError` that says what was looked for, or what contradicts itself in
 * the annotations: ids that match nothing, no annotations, no masks at all.
 */
export const openLabels = Effect.fn("openLabels")(
  function* (
    { dataDir, split, kind: wanted, coarse, objects }: LabelOptions,
  ): Effect.fn.Return<Labels, LabelError> {
    const places = placesOf(dataDir, split);
    const kinds = wanted === null ? LABEL_KINDS : [wanted];
    const kind = kinds.find((kind) => exists(places[kind]));
    if (kind === undefined) {
      const lookedFor = kinds.map((kind) => `${places[kind]} (${kind})`).join(", ");
      return yield* new LabelError({ subject: dataDir, reason: `it has none, looked for ${lookedFor}` });
    }
    const from = places[kind];
    const masks = kind === "stuff" || kind === "instances"
      ? yield* openAnnotations(from, "segmentation")
      : null;
    const source = yield* match(kind)
      .with("panoptic", () => panoptic(from, join(dataDir, "annotations", `panoptic_${split}2017`)))
      .with("stuffthing", () => maps(dataDir, from, (value) => value === 255 ? 0 : value + 1))
      .with("pixelmaps", () => maps(dataDir, from, (value) => value))
      .with("stuff", "instances", () => Effect.succeed(annotated(masks!)))
      .exhaustive();
    const instances = !objects || kind === "panoptic" || !exists(places.instances)
      ? null
      : kind === "instances"
      ? masks
      : yield* openAnnotations(places.instances, "segmentation");

    const names = source.categories.map(({ name, supercategory }) => coarse ? supercategory ?? name : name);
    const classes = [...new Set(names)];
    const placeOf = new Map(classes.map((name, place) => [name, place + 1]));
    const labelOf = Uint16Array.of(0, ...names.map((name) => placeOf.get(name)!));
    const named = new Set(names.filter((_, place) => source.categories[place].isNamed !== false));
    const objectsIn = instances === null ? null : objectMaps(instances);
    const folder = join(dataDir, `${split}2017`);
    return {
      kind,
      from,
      classes,
      named: [...named],
      labelOf,
      pictures: source.pictures.map(({ name, source }) => ({
        file: join(folder, name),
        from,
        source,
        read: Effect.fnUntraced(function* (picture) {
          const { categories, objects: own } = yield* readCocoPlaces(yield* source, picture);
          const { width, height } = picture;
          for (let i = 0; i < categories.length; i++) categories[i] = labelOf[categories[i]];
          const objects = own ?? (objectsIn === null ? null : yield* objectsIn(name, picture));
          return { width, height, labels: categories, objects };
        }),
      })),
      warnings: [...new Set([...source.warnings, ...instances?.warnings ?? []])],
    };
  },
);

const placesOf = (dataDir: string, split: Split): Readonly<Record<LabelKind, string>> => ({
  panoptic: join(dataDir, "annotations", `panoptic_${split}2017.json`),
  stuffthing: join(dataDir, "stuffthingmaps", `${split}2017`),
  pixelmaps: join(dataDir, "annotations", `stuff_${split}2017_pixelmaps`),
  stuff: join(dataDir, "annotations", `stuff_${split}2017.json`),
  instances: join(dataDir, "annotations", `instances_${split}2017.json`),
});

// --- What an image is made of ---

interface Source {
  readonly categories: readonly (Pick<Category, "name" | "supercategory"> & { readonly isNamed?: false })[];
  readonly pictures: readonly SourcePicture[];
  readonly warnings: readonly string[];
}

interface SourcePicture {
  readonly name: string; // path inside of the folder of images
  readonly source: Effect.Effect<CocoSource, LabelError>;
}

/** The category and the object of every pixel. */
export interface Places {
  readonly categories: Uint16Array; // [H, W], place in the categories + 1, 0 where none is known
  readonly objects: Uint16Array | null;
}

/**
 * Reads the annotations of an image, whose size is given. Fails with a `LabelError` where they are of another size, before
 * they take memory, or are damaged.
 */
export const readCocoPlaces = (source: CocoSource, picture: Size): Effect.Effect<Places, LabelError> =>
  match(source)
    .with({ kind: "map" }, (source) => mapPlaces(source, picture))
    .with({ kind: "masks" }, (source) => maskPlaces(source, picture))
    .with({ kind: "panoptic" }, (source) => panopticPlaces(source, picture))
    .exhaustive();

/** Labels of another size than their image would be stretched over it. */
export const expectSize = (
  path: string,
  name: string,
  labels: Size,
  picture: Size,
): Effect.Effect<void, LabelError> => {
  if (labels.width === picture.width && labels.height === picture.height) return Effect.void;
  const remedy = labels.width === picture.height && labels.height === picture.width
    ? "one of the two is turned, perhaps by EXIF's orientation, so save both upright"
    : "both must be of one size";
  const reason = `its labels of ${shown(name)} are for ${labels.width} x ${labels.height} pixels, ` +
    `the picture has ${picture.width} x ${picture.height}: ${remedy}`;
  return Effect.fail(new LabelError({ subject: path, reason }));
};

/**
 * Limits that no photograph's annotations reach: what is kept of the masks of an image, and the pixels in all of them.
 */
const MOST_SPANS = 2 ** 25, MOST_MASKED = 2 ** 33;
/** Objects are counted in 16 bits. */
const MOST_OBJECTS = 2 ** 16 - 1;

interface Mask {
  readonly category: number; // place in the categories + 1
  readonly isCrowd: boolean;
  readonly spans: Spans;
  readonly area: number; // pixels
}

/** The masks of an image as they are stored. */
const maskSource = (
  { path, placeOf, annotationsOf }: Annotations,
  picture: AnnotatedPicture,
): Effect.Effect<CocoMaskSource, LabelError> =>
  Effect.map(annotationsOf(picture), (annotations) => ({
    kind: "masks",
    from: path,
    name: picture.name,
    size: { width: picture.width, height: picture.height },
    masks: annotations.map(({ title, value, isCrowd }) => (
      { title, segmentation: value.segmentation, category: placeOf.get(value.category_id)!, isCrowd }
    )),
  }));

/**
 * Masks in the order in which they are drawn one over the other: crowds first, then from the largest to the smallest.
 */
const masksOf = Effect.fnUntraced(function* ({ from, name, size, masks: stored }: CocoMaskSource) {
  const refuse = (reason: string) => new LabelError({ subject: from, reason });
  const masks: Mask[] = [];
  let kept = 0, masked = 0;
  for (const { title, segmentation, category, isCrowd } of stored) {
    const found = segmentationSpans(segmentation, { name, ...size });
    if (Result.isFailure(found)) return yield* refuse(`${title}: ${found.failure}`);
    const spans = found.success, area = spansArea(spans);
    kept += spans.length;
    masked += area;
    if (kept > MOST_SPANS || masked > MOST_MASKED) {
      return yield* refuse(`the masks of ${shown(name)} are more than those of any photograph`);
    }
    masks.push({ category, isCrowd, spans, area });
  }
  return masks.sort((a, b) => Number(b.isCrowd) - Number(a.isCrowd) || b.area - a.area);
});

const annotated = (index: Annotations): Source => ({
  categories: index.categories,
  pictures: index.pictures.map((picture) => ({ name: picture.name, source: maskSource(index, picture) })),
  warnings: index.warnings,
});

const maskPlaces = Effect.fnUntraced(function* (source: CocoMaskSource, size: Size) {
  yield* expectSize(source.from, source.name, source.size, size);
  const categories = new Uint16Array(size.width * size.height);
  for (const { category, spans } of yield* masksOf(source)) fillSpans(spans, size, categories, category);
  return { categories, objects: null } satisfies Places as Places;
});

/** The objects of an image by its file's name; one that is not listed has none. */
const objectMaps = (index: Annotations) => {
  const withoutSuffix = (path: string) => join(parse(path).dir, parse(path).name);
  const named = new Map(index.pictures.map((picture) => [withoutSuffix(picture.name), picture]));
  return Effect.fnUntraced(function* (name: string, size: Size) {
    const picture = named.get(withoutSuffix(name));
    if (picture === undefined) return null;
    yield* expectSize(index.path, picture.name, picture, size);
    const objects = new Uint16Array(size.width * size.height);
    let object = 0;
    for (const { isCrowd, spans } of yield* masksOf(yield* maskSource(index, picture))) {
      fillSpans(spans, size, objects, isCrowd ? 0 : ++object);
    }
    return objects;
  });
};

const panoptic = Effect.fnUntraced(function* (path: string, folder: string) {
  const index = yield* openAnnotations(path, "segments_info");
  if (!exists(folder)) {
    return yield* new LabelError({
      subject: path,
      reason: `the maps that belong to it are missing: ${folder}/*.png`,
    });
  }
  return {
    categories: index.categories,
    pictures: index.pictures.map((picture) => ({
      name: picture.name,
      source: panopticSource(index, folder, picture),
    })),
    warnings: index.warnings,
  } satisfies Source as Source;
});

const panopticSource = Effect.fnUntraced(
  function* (index: Annotations, folder: string, picture: AnnotatedPicture) {
    const refuse = (reason: string) => new LabelError({ subject: index.path, reason });
    const annotations = yield* index.annotationsOf(picture);
    if (annotations.length !== 1) {
      return yield* refuse(
        `it has ${annotations.length} annotations of ${shown(picture.name)}, expected one`,
      );
    }
    const [{ title, value: { file_name: file, segments_info: listed } }] = annotations;
    if (typeof file !== "string" || !Array.isArray(listed)) {
      return yield* refuse(`${title} has no file_name or no segments_info`);
    }
    const segments = new Map<number, readonly [category: number, object: number]>([[0, [0, 0]]]);
    let objects = 0;
    for (const segment of listed) {
      const { id, category_id: category, iscrowd } = isObject(segment)
        ? segment as Record<string, unknown>
        : {};
      const place = index.placeOf.get(category);
      if (typeof id !== "number" || place === undefined) {
        return yield* refuse(
          `${title} has a segment ${shown(id)} of category ${
            shown(category)
          }, which is none of its categories`,
        );
      }
      const isCrowd = iscrowd === 1 || iscrowd === true;
      segments.set(id, [place, index.categories[place - 1].isThing && !isCrowd ? ++objects : 0]);
    }
    if (objects > MOST_OBJECTS) {
      return yield* refuse(`${title} has ${objects} objects, at most ${MOST_OBJECTS} are read`);
    }
    return {
      kind: "panoptic",
      from: index.path,
      name: picture.name,
      size: { width: picture.width, height: picture.height },
      map: join(folder, file),
      segments,
    } satisfies CocoPanopticSource as CocoPanopticSource;
  },
);

/** A pixel's colour is the number of its segment: r + 256 g + 65536 b, 0 for none. */
const panopticPlaces = Effect.fnUntraced(function* (source: CocoPanopticSource, size: Size) {
  const { from, name, map: file, segments } = source;
  yield* expectSize(from, name, source.size, size);
  const map = yield* readMap(file);
  yield* expectSize(file, name, map, size);
  const { samples, channels } = map;
  if (channels < 3) {
    return yield* new LabelError({ subject: file, reason: "it is no panoptic map: expected RGB" });
  }
  const categories = new Uint16Array(samples.length / channels), owners = new Uint16Array(categories.length);
  let last = 0, segment = segments.get(0);
  for (let i = 0; i < categories.length; i++) {
    const at = channels * i;
    const id = samples[at] + 256 * samples[at + 1] + 65536 * samples[at + 2];
    if (id !== last) [last, segment] = [id, segments.get(id)];
    if (segment === undefined) {
      const reason = `segment ${id} of "${basename(file)}" is not in its segments_info`;
      return yield* new LabelError({ subject: from, reason });
    }
    [categories[i], owners[i]] = segment;
  }
  return { categories, objects: owners } satisfies Places as Places;
});

/** Maps with a category's number in every pixel, grey or by palette. Names come from whatever file lists them. */
const maps = Effect.fnUntraced(
  function* (dataDir: string, folder: string, idOf: (value: number) => number) {
    const names = yield* Effect.tryPromise({
      try: async () =>
        (await visibleEntries(folder)).map(({ name }) => name).filter((name) => /\.png$/i.test(name)),
      catch: (error) => new LabelError({ subject: folder, reason: systemReason(error) }),
    });
    if (names.length === 0) return yield* new LabelError({ subject: folder, reason: "it has no *.png" });
    const known = new Map((yield* knownCategories(dataDir)).map((category) => [category.id, category]));
    const numbers = Uint16Array.from({ length: 256 }, (_, value) => idOf(value));
    return {
      categories: Array.from(
        { length: 255 },
        (_, i) =>
          known.get(i + 1) ?? { name: `class ${i + 1}`, supercategory: null, isNamed: false as const },
      ),
      pictures: names.map((name) => ({
        name: `${parse(name).name}.jpg`,
        source: Effect.succeed<CocoMapSource>({
          kind: "map",
          from: join(folder, name),
          name: `${parse(name).name}.jpg`,
          numbers,
        }),
      })),
      warnings: [],
    } satisfies Source as Source;
  },
);

const mapPlaces = Effect.fnUntraced(function* ({ from, name, numbers }: CocoMapSource, size: Size) {
  const map = yield* readMap(from);
  if (map.channels !== 1) {
    const reason = `it is no label map: expected one channel, found ${map.channels}`;
    return yield* new LabelError({ subject: from, reason });
  }
  yield* expectSize(from, name, map, size);
  return {
    categories: Uint16Array.from(map.samples, (value) => numbers[value]),
    objects: null,
  } satisfies Places as Places;
});

/** What lists categories: both splits have the same, and the files of the smaller one are read sooner. */
const knownCategories = Effect.fnUntraced(function* (dataDir: string) {
  if (exists(join(dataDir, "scenes.json"))) {
    return sceneClasses.map((name, i): Category => ({ id: i + 1, name, supercategory: null, isThing: true }));
  }
  const { panoptic, stuff, instances } = placesOf(dataDir, "val");
  return (yield* Effect.forEach([panoptic, stuff, instances].filter(exists), categoriesIn)).flat();
});

const LARGEST_MAP = 2 ** 28; // bytes

/** A PNG as it is written: of a palette the numbers, not the colours. */
const readMap = (path: string): Effect.Effect<PngSamples, LabelError> =>
  Effect.tryPromise({
    try: async () => readPngSamples(await readRegularFile(path, { largest: LARGEST_MAP })),
    catch: (error) => new LabelError({ subject: path, reason: (error as Error).message }),
  });
