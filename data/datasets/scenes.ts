/**
 * A data set of drawn scenes in the layout of COCO, with the truth about every pixel. Made in seconds, it shows on any
 * machine whether training works.
 *
 *     {train,val}2017/000000000001.jpg
 *     annotations/instances_{train,val}2017.json            the objects, with masks as run lengths
 *     annotations/stuff_{train,val}2017_pixelmaps/*.png     the class of every pixel, objects included
 *     scenes.json                                           what the set was made with
 *
 * In both kinds of annotations a class's number is its place in `sceneClasses` + 1.
 */
import { join } from "node:path";
import { Data, Effect } from "effect";
import sharp from "sharp";
import { type CocoInstances, instanceMask } from "../formats/coco.ts";
import { randomStream } from "../random/random.ts";
import { drawScene, type Scene, type SceneClass, sceneClasses, sceneObjects } from "./draw_scene.ts";

export interface SceneSet {
  readonly dir: string;
  readonly seed: number;
  readonly train: number; // pictures to train on
  readonly val: number; // other pictures, to score on
  readonly size: number; // width and height of each in pixels
}

export class SceneError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "SceneError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot make scenes in "${this.subject}": ${this.reason}`;
  }
}

/** Counts changes of what is drawn, so that no older set is taken for a new one. */
const DRAWING = 2;
const RECIPE = "scenes.json";

/**
 * Makes the set, or leaves the one that is there if it has the same parameters; tells whether it made one. The folder
 * is either whole or absent, and the same parameters give the same bytes.
 */
export const makeScenes = Effect.fn("makeScenes")(function* (set: SceneSet) {
  const { dir, seed, train, val, size } = set;
  const attempt = attemptIn(dir);
  const recipe = JSON.stringify({ drawing: DRAWING, seed, train, val, size });
  const present = yield* attempt(() => recipeOf(dir));
  if (present === recipe) return false;
  if (present === "") {
    return yield* new SceneError({ subject: dir, reason: "other files are there, name a new folder" });
  }

  const aside = `${dir}.part`;
  yield* Effect.gen(function* () {
    yield* attempt(() => remove(aside));
    yield* writeSplit(aside, "train", train, set);
    yield* writeSplit(aside, "val", val, set);
    yield* attempt(async () => {
      await Deno.writeTextFile(join(aside, RECIPE), recipe);
      await remove(dir);
      await Deno.rename(aside, dir);
    });
  }).pipe(Effect.ensuring(Effect.ignore(attempt(() => remove(aside)))));
  return true;
});

/** The recipe of the set in a folder; "" if the folder holds something else, null if there is none or it is empty. */
const recipeOf = async (dir: string): Promise<string | null> => {
  const text = await unlessAbsent(Deno.readTextFile(join(dir, RECIPE)));
  if (text !== null) return text;
  const entries = await unlessAbsent(Array.fromAsync(Deno.readDir(dir)));
  return entries?.length ? "" : null;
};

const remove = (dir: string) => unlessAbsent(Deno.remove(dir, { recursive: true }));

const unlessAbsent = <A>(action: Promise<A>): Promise<A | null> =>
  action.catch((error) => {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  });

const attemptIn = (dir: string) => <A>(action: () => Promise<A>) =>
  Effect.tryPromise({
    try: action,
    catch: (error) =>
      new SceneError({ subject: dir, reason: error instanceof Error ? error.message : String(error) }),
  });

const SPLITS = ["train", "val"] as const;

/** What tells the draws of scenes from the other draws of a seed. */
const SCENES = 5;

const writeSplit = Effect.fnUntraced(
  function* (
    dir: string,
    split: (typeof SPLITS)[number],
    count: number,
    { dir: home, seed, size }: SceneSet,
  ) {
    const attempt = attemptIn(home);
    const pictures = join(dir, `${split}2017`);
    const maps = join(dir, "annotations", `stuff_${split}2017_pixelmaps`);
    yield* attempt(() => Deno.mkdir(pictures, { recursive: true }));
    yield* attempt(() => Deno.mkdir(maps, { recursive: true }));

    const draw = async (id: number) => {
      const scene = drawScene(randomStream(seed, SCENES, SPLITS.indexOf(split), id), size);
      const square = { width: size, height: size };
      const jpeg = sharp(scene.rgb, { raw: { ...square, channels: 3 } }).jpeg({ quality: 92 });
      const png = sharp(scene.labels, { raw: { ...square, channels: 1 } }).toColourspace("b-w").png();
      await Deno.writeFile(join(pictures, `${nameOf(id)}.jpg`), await jpeg.toBuffer());
      await Deno.writeFile(join(maps, `${nameOf(id)}.png`), await png.toBuffer());
      return instancesIn(scene, id, size);
    };
    const ids = Array.from({ length: count }, (_, i) => i + 1);
    const found = yield* Effect.forEach(ids, (id) => attempt(() => draw(id)), { concurrency: 4 });

    const file: CocoInstances = {
      info: { description: `Drawn scenes, seed ${seed}`, version: String(DRAWING) },
      licenses: [{ id: 1, name: "CC0 1.0", url: "https://creativecommons.org/publicdomain/zero/1.0/" }],
      images: ids.map((id) => ({
        id,
        file_name: `${nameOf(id)}.jpg`,
        width: size,
        height: size,
        license: 1,
      })),
      annotations: found.flat().map((instance, i) => ({ id: i + 1, ...instance })),
      categories: sceneObjects.map((name) => ({ id: labelOf(name), name, supercategory: "object" })),
    };
    const path = join(dir, "annotations", `instances_${split}2017.json`);
    yield* attempt(() => Deno.writeTextFile(path, JSON.stringify(file)));
  },
);

const nameOf = (id: number) => String(id).padStart(12, "0");
const labelOf = (name: SceneClass) => sceneClasses.indexOf(name) + 1;

/** The annotations of a scene's objects, less those that are wholly hidden. */
const instancesIn = ({ owners, objects }: Scene, id: number, size: number) =>
  objects.map((name, place) => ({
    image_id: id,
    category_id: labelOf(name),
    iscrowd: 0 as const,
    ...instanceMask(owners.map((owner) => Number(owner === place + 1)), size, size),
  })).filter(({ area }) => area > 0);
