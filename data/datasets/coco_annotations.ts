/**
 * COCO's annotation files: which images and categories there are, and the annotations of an image. What pycocotools
 * accepts is accepted: ids from 0 on or that are texts, `iscrowd` as a truth value, boxes without a mask, numbers that
 * are NaN.
 */
import { isAbsolute, normalize } from "node:path";
import { Data, Effect } from "effect";
import { isObject, shown } from "../files/format_error.ts";
import { readRegularFile } from "../files/regular_file.ts";
import { type JsonList, jsonLists, JsonListsError } from "../formats/json_lists.ts";

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

type Id = number | string;

export interface Category {
  readonly id: Id;
  readonly name: string;
  readonly supercategory: string | null;
  readonly isThing: boolean; // whether its annotations are objects
}

export interface AnnotatedPicture {
  readonly id: Id;
  readonly name: string; // path inside of the folder of images
  readonly width: number;
  readonly height: number;
}

export interface Annotation {
  /** What to call it: "annotation 3 of "000002.jpg"". */
  readonly title: string;
  readonly value: Readonly<Record<string, unknown>>;
  readonly isCrowd: boolean;
}

export interface Annotations {
  readonly path: string;
  readonly pictures: readonly AnnotatedPicture[];
  readonly categories: readonly Category[]; // by id
  /** The place of a category in `categories`, + 1. */
  readonly placeOf: ReadonlyMap<unknown, number>;
  /** Parses the annotations of an image, those without a mask left out where masks are wanted. */
  readonly annotationsOf: (picture: AnnotatedPicture) => Effect.Effect<readonly Annotation[], LabelError>;
  /** What was left out: sentences. */
  readonly warnings: readonly string[];
}

const LARGEST_FILE = 2 ** 31;
/** Places in `categories`, and objects of an image, are kept in 16 bits. */
const MOST_CATEGORIES = 2 ** 16 - 1, MOST_OF_PICTURE = 2 ** 16 - 1;

/** Opens the annotations of a data set. What each needs besides its image: a mask, or a list of segments in a map. */
export const openAnnotations: (
  path: string,
  needs: "segmentation" | "segments_info",
) => Effect.Effect<Annotations, LabelError> = Effect.fn("openAnnotations")(
  function* (path, needs) {
    const lists = yield* listsIn(path);
    const attempt = attemptIn(path);
    return yield* attempt(() => indexed(path, lists, needs)).pipe(
      Effect.map(({ places, ...index }): Annotations => ({
        ...index,
        annotationsOf: (picture) =>
          attempt(() =>
            (places.get(picture.id) ?? []).map((place) => annotationAt(lists, place, picture.name))
          ),
      })),
    );
  },
);

/** The categories that a file lists, whatever its annotations are. */
export const categoriesIn: (
  path: string,
) => Effect.Effect<readonly Category[], LabelError> = Effect.fnUntraced(function* (path) {
  const lists = yield* listsIn(path);
  return yield* attemptIn(path)(() => categoriesOf(lists));
});

type Lists = ReadonlyMap<string, JsonList>;

const listsIn = Effect.fnUntraced(function* (path: string): Effect.fn.Return<Lists, LabelError> {
  const bytes = yield* Effect.tryPromise({
    try: () => readRegularFile(path, { largest: LARGEST_FILE }),
    catch: (error) => new LabelError({ subject: path, reason: (error as Error).message }),
  });
  return yield* attemptIn(path)(() => jsonLists(bytes));
});

class Refusal extends Error {}

const refuse = (reason: string): never => {
  throw new Refusal(reason);
};

const attemptIn = (path: string) => <A>(work: () => A): Effect.Effect<A, LabelError> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(work());
    } catch (error) {
      if (!(error instanceof Refusal || error instanceof JsonListsError)) throw error;
      return Effect.fail(new LabelError({ subject: path, reason: error.message }));
    }
  });

const listOf = (lists: Lists, name: string): JsonList => {
  const list = lists.get(name) ?? refuse(`it has no list "${name}"`);
  return list.length > 0 ? list : refuse(`its list "${name}" is empty`);
};

type Fields = Readonly<Record<string, unknown>>;

const entryAt = (list: JsonList, place: number, name: string): Fields => {
  const entry = list.at(place);
  return isObject(entry) && !Array.isArray(entry)
    ? entry as Fields
    : refuse(`entry ${place + 1} of "${name}" is no object`);
};

const isId = (value: unknown): value is Id => Number.isSafeInteger(value) || typeof value === "string";

/** Reads all entries once: those of a million annotations are checked, and not kept. */
const indexed = (path: string, lists: Lists, needs: "segmentation" | "segments_info") => {
  const pictures = picturesOf(lists);
  const categories = categoriesOf(lists);
  const placeOf = new Map<unknown, number>(categories.map(({ id }, place) => [id, place + 1]));
  const named = new Map<unknown, string>(pictures.map(({ id, name }) => [id, name]));
  const annotations = listOf(lists, "annotations");
  const places = new Map<unknown, number[]>();
  const strangers = new Counted(), maskless = new Counted();
  for (let place = 0; place < annotations.length; place++) {
    const value = entryAt(annotations, place, "annotations");
    const name = named.get(value.image_id);
    if (name === undefined) {
      strangers.add(`${titleOf(value, place)} of picture ${shown(value.image_id)}`);
      continue;
    }
    if (needs === "segmentation") {
      const { title } = annotationOf(value, place, name);
      if (!placeOf.has(value.category_id)) {
        refuse(`${title} is of category ${shown(value.category_id)}, which is none of its categories`);
      }
      const { segmentation } = value;
      if (
        segmentation === undefined || segmentation === null ||
        Array.isArray(segmentation) && segmentation.length === 0
      ) {
        maskless.add(title);
        continue;
      }
    }
    const known = places.get(value.image_id);
    if (known === undefined) places.set(value.image_id, [place]);
    else if (known.push(place) > MOST_OF_PICTURE) {
      refuse(`picture ${shown(name)} has more than ${MOST_OF_PICTURE} annotations`);
    }
  }

  const { length } = annotations;
  if (strangers.count === length) {
    refuse(
      `none of its ${length} annotations is of one of its ${pictures.length} pictures: the first is ${strangers.first}, ` +
        `the first picture is ${shown(pictures[0].id)}`,
    );
  }
  if (places.size === 0) {
    refuse(`none of its ${length} annotations has a mask ("segmentation"), which labels of pixels need`);
  }
  const left = (what: Counted, why: string) =>
    what.count === 0 ? [] : [
      `${what.count} of ${length} annotations in "${path}" ${why} and are left out, the first is ${what.first}`,
    ];
  const warnings = [...left(strangers, "are of none of its pictures"), ...left(maskless, "have no mask")];
  return { path, pictures, categories, placeOf, places, warnings };
};

/** How many there are of something, and the first of them. */
class Counted {
  count = 0;
  first = "";
  add(title: string) {
    if (this.count++ === 0) this.first = title;
  }
}

const titleOf = ({ id }: Fields, place: number) =>
  isId(id) ? `annotation ${shown(id)}` : `the annotation at place ${place + 1}`;

const annotationAt = (lists: Lists, place: number, picture: string): Annotation =>
  annotationOf(entryAt(listOf(lists, "annotations"), place, "annotations"), place, picture);

const annotationOf = (value: Fields, place: number, picture: string): Annotation => {
  const title = `${titleOf(value, place)} of ${shown(picture)}`;
  return {
    title,
    value,
    isCrowd: flagOf(value.iscrowd) ??
      refuse(`the iscrowd of ${title} is ${shown(value.iscrowd)}, expected 0 or 1`),
  };
};

/** 0 or 1, also as a truth value; nothing is 0. Null for all else. */
const flagOf = (value: unknown): boolean | null => {
  if (value === undefined || value === null || value === 0 || value === false) return false;
  return value === 1 || value === true ? true : null;
};

const picturesOf = (lists: Lists): readonly AnnotatedPicture[] => {
  const list = listOf(lists, "images");
  const ids = new Set<unknown>();
  return Array.from({ length: list.length }, (_, place) => {
    const { id, file_name: name, width, height } = entryAt(list, place, "images");
    if (!isId(id)) return refuse(`picture ${place + 1} of its "images" has the id ${shown(id)}`);
    if (typeof name !== "string" || name === "") return refuse(`picture ${shown(id)} has no file_name`);
    if (isAbsolute(name) || normalize(name).startsWith("..")) {
      return refuse(`picture ${shown(id)} is ${shown(name)}, which is outside of the folder of pictures`);
    }
    if (ids.has(id)) return refuse(`two pictures have the id ${shown(id)}, the second is ${shown(name)}`);
    ids.add(id);
    const isSide = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) > 0;
    if (!isSide(width) || !isSide(height)) {
      return refuse(`picture ${shown(name)} is said to have ${shown(width)} x ${shown(height)} pixels`);
    }
    return { id, name, width, height };
  });
};

const categoriesOf = (lists: Lists): readonly Category[] => {
  const list = listOf(lists, "categories");
  if (list.length > MOST_CATEGORIES) {
    refuse(`it has ${list.length} categories, at most ${MOST_CATEGORIES} are read`);
  }
  const names = new Map<unknown, string>();
  const categories = Array.from({ length: list.length }, (_, place): Category => {
    const { id, name, supercategory = null, isthing = 1 } = entryAt(list, place, "categories");
    if (!isId(id)) return refuse(`category ${place + 1} of its "categories" has the id ${shown(id)}`);
    if (typeof name !== "string") return refuse(`category ${shown(id)} has the name ${shown(name)}`);
    if (supercategory !== null && typeof supercategory !== "string") {
      return refuse(`category ${shown(id)} has the supercategory ${shown(supercategory)}`);
    }
    const isThing = flagOf(isthing) ??
      refuse(`category ${shown(id)} has the isthing ${shown(isthing)}, expected 0 or 1`);
    if (names.has(id)) {
      return refuse(`two categories have the id ${shown(id)}, ${shown(names.get(id))} and ${shown(name)}`);
    }
    names.set(id, name);
    return { id, name, supercategory, isThing };
  });
  return categories.sort((a, b) => compareIds(a.id, b.id));
};

/** Numbers by their value, before texts. */
const compareIds = (a: Id, b: Id): number => {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return a < b ? -1 : 1;
};
