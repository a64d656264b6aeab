/**
 * What is where in the pictures of a data set in COCO's layout: the class of every pixel, and which object it belongs to.
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
import { join, parse } from "node:path";
import { Data, Effect, Schema } from "effect";
import { decode as decodePng } from "fast-png";
import { match } from "ts-pattern";
import { exists } from "../files/exists.ts";
import { Segmentation, segmentationMask } from "../formats/coco_mask.ts";
import { sceneClasses } from "./draw_scene.ts";

export const LABEL_KINDS = ["panoptic", "stuffthing", "pixelmaps", "stuff", "instances"] as const;
export type LabelKind = (typeof LABEL_KINDS)[number];

export type Split = "train" | "val";

/** Annotations are missing, or are not what they should be. */
export class LabelError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "LabelError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot read labels from "${this.subject}": ${this.reason}`;
  }
}

export interface LabelMap {
  readonly width: number;
  readonly height: number;
  readonly labels: Uint16Array; // [H, W], place in `classes` + 1; 0 where nobody knows
  readonly objects: Uint16Array | null; // [H, W], 1 … for each object, 0 elsewhere; null without annotations of objects
}

export interface LabelledFile {
  readonly file: string; // the picture
  readonly read: Effect.Effect<LabelMap, LabelError>;
}

export interface Labels {
  readonly kind: LabelKind;
  readonly from: string; // the file or folder that the classes come from
  readonly classes: readonly string[]; // by name
  readonly pictures: readonly LabelledFile[];
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

/** Opens the labels of a split. Fails with a `LabelError` that says what was looked for. */
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
    const index = kind === "stuff" || kind === "instances" ? yield* readIndex(from) : null;
    const { categories, pictures } = yield* match(kind)
      .with("panoptic", () => panoptic(from, join(dataDir, "annotations", `panoptic_${split}2017`)))
      .with("stuffthing", () => maps(dataDir, from, (value) => value === 255 ? 0 : value + 1))
      .with("pixelmaps", () => maps(dataDir, from, (value) => value))
      .with("stuff", "instances", () => Effect.succeed(annotated(index!)))
      .exhaustive();
    const instances = !objects || kind === "panoptic" || !exists(places.instances)
      ? null
      : kind === "instances"
      ? index
      : yield* readIndex(places.instances);

    const name = ({ name, supercategory }: Category) => coarse ? supercategory ?? name : name;
    const classes = [...new Set(categories.map(name))];
    const placeOf = new Map(categories.map((each) => [each.id, classes.indexOf(name(each)) + 1]));
    const objectsIn = instances === null ? null : objectMaps(instances);
    const folder = join(dataDir, `${split}2017`);
    return {
      kind,
      from,
      classes,
      pictures: pictures.map(({ name, read }) => ({
        file: join(folder, name),
        read: read.pipe(
          Effect.flatMap(({ width, height, categories, objects: own }) =>
            Effect.gen(function* () {
              const labels = new Uint16Array(categories.length);
              let last = 0, place = 0; // neighbours are mostly of one category
              for (let i = 0; i < labels.length; i++) {
                if (categories[i] !== last) {
                  last = categories[i];
                  place = last === 0 ? 0 : placeOf.get(last) ?? -1;
                  if (place < 0) {
                    const reason =
                      `a pixel of "${name}" is of category ${last}, which is none of its categories`;
                    return yield* new LabelError({ subject: from, reason });
                  }
                }
                labels[i] = place;
              }
              return { width, height, labels, objects: own ?? (yield* objectsIn?.(name) ?? none) };
            })
          ),
        ),
      })),
    };
  },
);

const none = Effect.succeed(null);

const placesOf = (dataDir: string, split: Split): Readonly<Record<LabelKind, string>> => ({
  panoptic: join(dataDir, "annotations", `panoptic_${split}2017.json`),
  stuffthing: join(dataDir, "stuffthingmaps", `${split}2017`),
  pixelmaps: join(dataDir, "annotations", `stuff_${split}2017_pixelmaps`),
  stuff: join(dataDir, "annotations", `stuff_${split}2017.json`),
  instances: join(dataDir, "annotations", `instances_${split}2017.json`),
});

// --- Annotation files ---

const Category = Schema.Struct({
  id: Schema.Int.check(Schema.isGreaterThan(0)),
  name: Schema.String,
  supercategory: Schema.optional(Schema.String),
  isthing: Schema.optional(Schema.Literals([0, 1])),
});
type Category = typeof Category.Type;

const Picture = Schema.Struct({
  id: Schema.Int,
  file_name: Schema.String,
  width: Schema.Int,
  height: Schema.Int,
});
type Picture = typeof Picture.Type;

// The annotations themselves are looked at when their picture is read: there may be a million of them.
const Index = Schema.Struct({
  images: Schema.Array(Picture),
  categories: Schema.Array(Category),
  annotations: Schema.Array(Schema.Unknown),
});

interface OpenIndex {
  readonly path: string;
  readonly pictures: readonly Picture[];
  readonly categories: readonly Category[];
  readonly annotationsOf: (picture: Picture) => readonly unknown[];
}

const Annotation = Schema.Struct({
  category_id: Schema.Int,
  iscrowd: Schema.optional(Schema.Literals([0, 1])),
  segmentation: Segmentation,
});

const Panoptic = Schema.Struct({
  file_name: Schema.String,
  segments_info: Schema.Array(
    Schema.Struct({ id: Schema.Int, category_id: Schema.Int, iscrowd: Schema.optional(Schema.Int) }),
  ),
});

const readIndex = Effect.fnUntraced(function* (path: string) {
  const { images, categories, annotations } = yield* Effect.tryPromise({
    try: async () => {
      if ((await Deno.stat(path)).size > LARGEST) {
        throw new Error(
          "it is too large to be read as a whole (512 MiB and more): choose others by --labels",
        );
      }
      return JSON.parse(await Deno.readTextFile(path)) as unknown;
    },
    catch: (error) => new LabelError({ subject: path, reason: (error as Error).message }),
  }).pipe(Effect.flatMap(decoded(Index, path)));
  const byPicture = new Map<unknown, unknown[]>();
  for (const annotation of annotations) {
    const id = (annotation as { image_id?: unknown } | null)?.image_id;
    const known = byPicture.get(id);
    if (known === undefined) byPicture.set(id, [annotation]);
    else known.push(annotation);
  }
  return {
    path,
    pictures: images,
    categories: categories.toSorted((a, b) => a.id - b.id),
    annotationsOf: ({ id }) => byPicture.get(id) ?? [],
  } satisfies OpenIndex as OpenIndex;
});

/** Bytes that fit into a string. */
const LARGEST = 2 ** 29 - 24;

const decoded = <A>(schema: Schema.Decoder<A>, path: string) => (value: unknown) =>
  Schema.decodeUnknownEffect(schema)(value).pipe(
    Effect.mapError(({ message }) =>
      new LabelError({ subject: path, reason: message.replace(/\s*\n\s*/g, " ") })
    ),
  );

// --- What a picture is made of ---

interface Source {
  readonly categories: readonly Category[];
  readonly pictures: readonly { readonly name: string; readonly read: Effect.Effect<Ids, LabelError> }[];
}

interface Ids {
  readonly width: number;
  readonly height: number;
  readonly categories: ArrayLike<number>; // [H, W], a category's id, 0 where none is known
  readonly objects: Uint16Array | null;
}

/** Masks drawn one over the other: crowds first, then from the largest to the smallest. */
const masksOf = Effect.fnUntraced(function* ({ path, annotationsOf }: OpenIndex, picture: Picture) {
  const masks: { category: number; crowd: boolean; mask: Uint8Array; area: number }[] = [];
  for (const annotation of annotationsOf(picture)) {
    const { category_id, iscrowd, segmentation } = yield* decoded(Annotation, path)(annotation);
    const mask = segmentationMask(segmentation, picture);
    if (mask === null) {
      const reason =
        `run lengths of "${picture.file_name}" do not cover ${picture.width} x ${picture.height} pixels`;
      return yield* new LabelError({ subject: path, reason });
    }
    const area = mask.reduce((sum, value) => sum + value, 0);
    masks.push({ category: category_id, crowd: iscrowd === 1, mask, area });
  }
  return masks.sort((a, b) => Number(b.crowd) - Number(a.crowd) || b.area - a.area);
});

const annotated = (index: OpenIndex): Source => ({
  categories: index.categories,
  pictures: index.pictures.map((picture) => ({
    name: picture.file_name,
    read: Effect.map(masksOf(index, picture), (masks) => {
      const { width, height } = picture;
      const categories = new Uint32Array(width * height);
      for (const { category, mask } of masks) {
        for (let i = 0; i < mask.length; i++) if (mask[i] === 1) categories[i] = category;
      }
      return { width, height, categories, objects: null };
    }),
  })),
});

/** The objects of a picture by its file's name; one that is not listed has none. */
const objectMaps = (index: OpenIndex) => {
  const named = new Map(index.pictures.map((picture) => [parse(picture.file_name).name, picture]));
  return Effect.fnUntraced(function* (name: string) {
    const picture = named.get(parse(name).name);
    if (picture === undefined) return null;
    const objects = new Uint16Array(picture.width * picture.height);
    let object = 0;
    for (const { crowd, mask } of yield* masksOf(index, picture)) {
      const value = crowd ? 0 : ++object;
      for (let i = 0; i < mask.length; i++) if (mask[i] === 1) objects[i] = value;
    }
    return objects;
  });
};

const panoptic = Effect.fnUntraced(function* (path: string, folder: string) {
  const index = yield* readIndex(path);
  if (!exists(folder)) {
    return yield* new LabelError({
      subject: path,
      reason: `the maps that belong to it are missing: ${folder}/*.png`,
    });
  }
  const isThing = new Map(index.categories.map(({ id, isthing }) => [id, isthing !== 0]));
  return {
    categories: index.categories,
    pictures: index.pictures.map((picture) => ({
      name: picture.file_name,
      read: Effect.gen(function* () {
        const [annotation] = index.annotationsOf(picture);
        const { file_name, segments_info } = yield* decoded(Panoptic, path)(annotation);
        const { width, height, data, channels } = yield* readMap(join(folder, file_name));
        if (channels < 3) {
          const reason = "it is no panoptic map: expected RGB";
          return yield* new LabelError({ subject: join(folder, file_name), reason });
        }
        const segments = new Map<number, readonly [category: number, object: number]>([[0, [0, 0]]]);
        let objects = 0;
        for (const { id, category_id, iscrowd } of segments_info) {
          const isObject = isThing.get(category_id) === true && iscrowd !== 1;
          segments.set(id, [category_id, isObject ? ++objects : 0]);
        }
        const categories = new Uint32Array(width * height), owners = new Uint16Array(width * height);
        let last = 0, segment = segments.get(0);
        for (let i = 0; i < categories.length; i++) {
          const at = channels * i;
          const id = data[at] + 256 * data[at + 1] + 65536 * data[at + 2];
          if (id !== last) [last, segment] = [id, segments.get(id)];
          if (segment === undefined) {
            const reason = `segment ${id} of "${file_name}" is not in its segments_info`;
            return yield* new LabelError({ subject: path, reason });
          }
          [categories[i], owners[i]] = segment;
        }
        return { width, height, categories, objects: owners };
      }),
    })),
  } satisfies Source as Source;
});

/** Maps with a category's number in every pixel, grey or by palette. Names come from whatever file lists them. */
const maps = Effect.fnUntraced(
  function* (dataDir: string, folder: string, idOf: (value: number) => number) {
    const names = yield* Effect.try({
      try: () =>
        Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) => /\.png$/i.test(name)),
      catch: (error) => new LabelError({ subject: folder, reason: (error as Error).message }),
    });
    if (names.length === 0) return yield* new LabelError({ subject: folder, reason: "it has no *.png" });
    const known = new Map((yield* knownCategories(dataDir)).map((category) => [category.id, category]));
    return {
      categories: Array.from(
        { length: 255 },
        (_, i) => known.get(i + 1) ?? { id: i + 1, name: `class ${i + 1}` },
      ),
      pictures: names.sort().map((name) => ({
        name: `${parse(name).name}.jpg`,
        read: Effect.gen(function* () {
          const { width, height, data, channels, depth } = yield* readMap(join(folder, name));
          if (channels !== 1 || depth > 8) {
            const reason =
              `it is no label map: expected one channel of 8 bits, found ${channels} of ${depth}`;
            return yield* new LabelError({ subject: join(folder, name), reason });
          }
          return { width, height, categories: data.map(idOf), objects: null };
        }),
      })),
    } satisfies Source as Source;
  },
);

/** What lists categories: both splits have the same, and the files of the smaller one are read sooner. */
const knownCategories = Effect.fnUntraced(function* (dataDir: string) {
  if (exists(join(dataDir, "scenes.json"))) {
    return sceneClasses.map((name, i): Category => ({ id: i + 1, name }));
  }
  const { panoptic, stuff, instances } = placesOf(dataDir, "val");
  const lists = yield* Effect.forEach(
    [panoptic, stuff, instances].filter(exists),
    (path) => Effect.map(readIndex(path), ({ categories }) => categories),
  );
  return lists.flat();
});

/** A PNG as it is written: of a palette the numbers, not the colours. */
const readMap = Effect.fnUntraced(function* (path: string) {
  return yield* Effect.tryPromise({
    try: async () => {
      const map = decodePng(await Deno.readFile(path));
      return map.depth < 8 ? { ...map, data: unpacked(map) } : map;
    },
    catch: (error) => new LabelError({ subject: path, reason: (error as Error).message }),
  });
});

/** Values of 1, 2 or 4 bits, which share bytes; each row begins a new byte. */
const unpacked = ({ width, height, data, depth }: ReturnType<typeof decodePng>): Uint8Array => {
  const perByte = 8 / depth;
  const rowBytes = Math.ceil(width / perByte);
  return Uint8Array.from({ length: width * height }, (_, i) => {
    const [x, y] = [i % width, Math.floor(i / width)];
    const byte = data[y * rowBytes + Math.floor(x / perByte)];
    return (byte >> (8 - depth * (x % perByte + 1))) & ((1 << depth) - 1);
  });
};
