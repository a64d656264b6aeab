/**
 * Which pictures a run trains on: the layouts of COCO and ImageNet, any folder, or a text file of paths.
 *
 * The order is the same on every machine, since the random draws know a picture by its place in the list.
 */
import { join } from "node:path";
import { Data, Effect } from "effect";
import { match } from "ts-pattern";
import { LARGEST_LIST, MOST_PATHS, type PathListProblem, pathsInList } from "./path_list.ts";

/** The name of a layout of data folders. */
export type Dataset = "COCO" | "COCOplus" | "COCOval" | "ImageNet" | "Folder";

/** A layout of data folders: a row of the table below. */
interface Layout {
  /** What `--data-dir` has to name. */
  readonly lookedFor: string;
  /** What the layout's name leaves open, for the help of commands. */
  readonly help: string | null;
  /** The paths of the pictures below `root`, which is a file if `isFile` says so. */
  readonly list: (root: string, isFile: boolean) => Effect.Effect<readonly string[], ImageListError>;
}

const FOLDER = { lookedFor: "the folder of pictures", help: null };

const LAYOUTS: Readonly<Record<Dataset, Layout>> = {
  COCO: { ...FOLDER, list: (root) => inFolders(root, ["train2017"], ".jpg") },
  COCOplus: { ...FOLDER, list: (root) => inFolders(root, ["train2017", "unlabeled2017"], ".jpg") },
  COCOval: { ...FOLDER, list: (root) => inFolders(root, ["val2017"], ".jpg") },
  ImageNet: { ...FOLDER, list: (root) => inClassFolders(root) },
  Folder: {
    lookedFor: "a folder or a text file of pictures",
    help: "any pictures, or a text file of paths",
    list: (root, isFile) => isFile ? inTextFile(root) : anywhere(root),
  },
};

/** The names of all layouts. */
export const datasets: readonly Dataset[] = Object.keys(LAYOUTS) as Dataset[];

/** What the option `dataset` of a command means. */
export const datasetHelp: string = [
  "layout of the data folder",
  ...datasets.filter((name) => LAYOUTS[name].help !== null).map((name) => `${name}: ${LAYOUTS[name].help}`),
].join("; ");

/** The suffixes under which a folder's pictures are looked for; which format it is, the content says. */
export const PICTURE = /\.(jpg|jpeg|jpe|jfif|png|webp|gif|tif|tiff|avif)$/i;

/** There is nothing to train on, and why. */
export class ImageListError extends Data.Error<{
  readonly subject: string;
  readonly reason:
    | "missing"
    | "unreadable"
    | "wrong layout"
    | "no pictures"
    | "not text"
    | "no paths"
    | "too large";
  readonly lookedFor: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ImageListError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    const { subject, lookedFor } = this;
    return match(this.reason)
      .with("missing", () => `There is no "${subject}": --data-dir must name ${lookedFor}`)
      .with("unreadable", () => `Cannot read "${subject}": allow this user to read it`)
      .with(
        "wrong layout",
        () => `There is no folder "${subject}": looked for ${lookedFor} (--dataset Folder takes any)`,
      )
      .with("no pictures", () => `There are no pictures in "${subject}": looked for ${lookedFor}`)
      .with("not text", () => `"${subject}" is neither a folder nor text: --data-dir must name ${lookedFor}`)
      .with("no paths", () => `The text file "${subject}" is empty: it must name pictures, one path a line`)
      .with(
        "too large",
        () =>
          `"${subject}" is no list of pictures: one has at most ${MOST_PATHS} lines, ` +
          `each no longer than a path can be`,
      )
      .exhaustive();
  }
}

/**
 * The paths of a data set's pictures: sorted in each of its folders, or as a text file lists them. Fails with an
 * `ImageListError` where the data folder does not have the layout, or no pictures.
 */
export const listImages: (
  data: { readonly dataset: Dataset; readonly dataDir: string },
) => Effect.Effect<readonly string[], ImageListError> = Effect.fn("listImages")(
  function* ({ dataset, dataDir }) {
    const { lookedFor, list } = LAYOUTS[dataset];
    const { isFile, isDirectory } = yield* attempt(() => Deno.stat(dataDir), {
      path: dataDir,
      lookedFor,
      missing: "missing",
    });
    if (!isFile && !isDirectory) { // opening a pipe or a device may block without end
      return yield* new ImageListError({ subject: dataDir, lookedFor, reason: "not text" });
    }
    return yield* list(dataDir, isFile);
  },
);

const inFolders = Effect.fnUntraced(function* (root: string, folders: readonly string[], suffix: string) {
  const lists = yield* Effect.forEach(folders, (folder) => {
    const path = join(root, folder);
    const lookedFor = `${folder}/*${suffix}`;
    return endingWith(suffix, path, lookedFor).pipe(Effect.flatMap(notEmpty(path, lookedFor)));
  });
  return lists.flat();
});

const inClassFolders = Effect.fnUntraced(function* (root: string) {
  const path = join(root, "train");
  const lookedFor = "train/<wnid>/*.JPEG";
  const classes = (yield* entries(path, lookedFor)).filter(({ isDirectory }) => isDirectory);
  const lists = yield* Effect.forEach(
    classes,
    ({ name }) => endingWith(".JPEG", join(path, name), lookedFor),
    { concurrency: 16 }, // a thousand folders, perhaps on a network disk
  );
  return yield* notEmpty(path, lookedFor)(lists.flat());
});

const anywhere = Effect.fnUntraced(function* (root: string) {
  const lookedFor = "*.jpg, *.png, *.webp, *.gif, *.tif and *.avif, in folders below it too";
  const seen = new Set<string>(); // links can lead back up
  const below = (folder: string): Effect.Effect<readonly string[], ImageListError> =>
    Effect.gen(function* () {
      const real = yield* attempt(() => Deno.realPath(folder), { path: folder, lookedFor });
      if (seen.has(real)) return [];
      seen.add(real);
      const lists = yield* Effect.forEach(yield* entries(folder, lookedFor), (entry) => {
        const path = join(folder, entry.name);
        if (entry.isDirectory) return below(path);
        return Effect.succeed(PICTURE.test(entry.name) ? [path] : []);
      });
      return lists.flat();
    });
  return yield* notEmpty(root, lookedFor)((yield* below(root)).toSorted());
});

const inTextFile = Effect.fnUntraced(function* (file: string) {
  const lookedFor = "a folder of pictures or a text file of paths";
  const refuse = (reason: PathListProblem) => new ImageListError({ subject: file, lookedFor, reason });
  const { size } = yield* attempt(() => Deno.stat(file), { path: file, lookedFor });
  if (size > LARGEST_LIST) return yield* refuse("too large");
  const paths = pathsInList(file, yield* attempt(() => Deno.readFile(file), { path: file, lookedFor }));
  return typeof paths === "string" ? yield* refuse(paths) : paths;
});

const endingWith = (suffix: string, folder: string, lookedFor: string) =>
  Effect.map(
    entries(folder, lookedFor),
    (found) => found.filter(({ name }) => name.endsWith(suffix)).map(({ name }) => join(folder, name)),
  );

const entries = (folder: string, lookedFor: string) =>
  attempt(() => visibleEntries(folder), { path: folder, lookedFor });

/**
 * The entries of a folder, sorted by name; links have the type of their targets. Hidden entries are left out, as `glob`
 * does: macOS leaves a `._photo.jpg` beside a photo.jpg on other disks.
 */
export const visibleEntries = async (
  folder: string,
): Promise<Pick<Deno.DirEntry, "name" | "isFile" | "isDirectory">[]> => {
  const all = await Array.fromAsync(Deno.readDir(folder));
  const visible = all.filter(({ name }) => !name.startsWith("."));
  return await Promise.all(
    visible.sort(byName).map((entry) => entry.isSymlink ? follow(folder, entry) : entry),
  );
};

const byName = (a: Deno.DirEntry, b: Deno.DirEntry) => a.name < b.name ? -1 : 1;

/** A link that leads nowhere stays in the list: the run will name it as a bad file. */
const follow = async (folder: string, { name }: Deno.DirEntry) => {
  const target = await Deno.stat(join(folder, name)).catch(() => ({ isFile: true, isDirectory: false }));
  return { name, isFile: target.isFile, isDirectory: target.isDirectory };
};

const attempt = <A>(
  read: () => Promise<A>,
  { path, lookedFor, missing = "wrong layout" }: {
    path: string;
    lookedFor: string;
    missing?: "missing" | "wrong layout";
  },
) =>
  Effect.tryPromise({
    try: read,
    catch: (error) => {
      const gone = error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
      return new ImageListError({ subject: path, lookedFor, reason: gone ? missing : "unreadable" });
    },
  });

const notEmpty = (path: string, lookedFor: string) => (found: readonly string[]) =>
  found.length > 0
    ? Effect.succeed(found)
    : Effect.fail(new ImageListError({ subject: path, lookedFor, reason: "no pictures" }));
