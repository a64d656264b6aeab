/** Pictures sorted into a folder a class, in ImageNet's layout: `train/<class>/*.JPEG`, `val/<class>/*.JPEG`. */
import { join } from "node:path";
import { Data, Effect } from "effect";
import { systemReason } from "../files/regular_file.ts";
import { PICTURE, visibleEntries } from "./image_list.ts";

/** The folders do not say which picture is of which class. */
export class ClassFolderError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ClassFolderError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot take classes from "${this.subject}": ${this.reason}`;
  }
}

export interface ClassifiedFile {
  readonly file: string;
  readonly label: number; // place in `classes`
}

export interface ClassFolders {
  readonly classes: readonly string[]; // names of the folders, sorted
  readonly train: readonly ClassifiedFile[];
  readonly val: readonly ClassifiedFile[];
}

const LAYOUT = "expected train/<class>/*.JPEG and val/<class>/*.JPEG (or .jpg, .png, .webp, …)";

/** The pictures of both splits, sorted. Fails where they do not have the same classes. */
export const classFolders = Effect.fn("classFolders")(
  function* (dataDir: string): Effect.fn.Return<ClassFolders, ClassFolderError> {
    const [train, val] = yield* Effect.forEach(["train", "val"], (split) => classesIn(join(dataDir, split)));
    const lacks = (split: string, other: string, a: typeof train, b: typeof train) => {
      const missing = [...a.keys()].filter((name) => !b.has(name));
      if (missing.length === 0) return Effect.void;
      const some = missing.slice(0, 3).map((name) => `"${name}"`).join(", ");
      const more = missing.length > 3 ? ` and ${missing.length - 3} more` : "";
      const reason = `${split}/ has ${some}${more}, which ${other}/ has not: both must have the same classes`;
      return Effect.fail(new ClassFolderError({ subject: dataDir, reason }));
    };
    yield* lacks("val", "train", val, train);
    yield* lacks("train", "val", train, val);
    const classes = [...train.keys()];
    if (classes.length < 2) {
      const reason = `there is one class, "${classes[0]}": at least two are needed to tell apart`;
      return yield* new ClassFolderError({ subject: dataDir, reason });
    }
    const files = (split: typeof train) =>
      classes.flatMap((name, label) => split.get(name)!.map((file) => ({ file, label })));
    return { classes, train: files(train), val: files(val) };
  },
);

const classesIn = Effect.fnUntraced(function* (path: string) {
  const all = yield* entries(path);
  const folders = all.filter(({ isDirectory }) => isDirectory);
  if (folders.length === 0) {
    const loose = all.filter(({ name }) => PICTURE.test(name)).length;
    const found = loose > 0 ? `pictures (${loose}), but no folder of a class` : "no folder of a class";
    return yield* new ClassFolderError({ subject: path, reason: `it has ${found}; ${LAYOUT}` });
  }
  const lists = yield* Effect.forEach(
    folders.map(({ name }) => name).sort(),
    (name) =>
      Effect.flatMap(entries(join(path, name)), (found) => {
        const files = found.filter((entry) => PICTURE.test(entry.name)).map((entry) => entry.name).sort();
        return files.length > 0
          ? Effect.succeed([name, files.map((file) => join(path, name, file))] as const)
          : Effect.fail(
            new ClassFolderError({ subject: join(path, name), reason: `it has no pictures; ${LAYOUT}` }),
          );
      }),
    { concurrency: 16 }, // a thousand folders, perhaps on a network disk
  );
  return new Map(lists);
});

const entries = (path: string) =>
  Effect.tryPromise({
    try: () => visibleEntries(path),
    catch: (error) => {
      const gone = error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
      const reason = gone ? `there is no such folder; ${LAYOUT}` : systemReason(error);
      return new ClassFolderError({ subject: path, reason });
    },
  });
