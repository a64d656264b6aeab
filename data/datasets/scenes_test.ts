import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Schema } from "effect";
import sharp from "sharp";
import { inTestFolder } from "../_test_kit.ts";
import { CocoInstances, maskOf } from "../formats/coco.ts";
import { sceneClasses } from "./draw_scene.ts";
import { makeScenes, type SceneSet } from "./scenes.ts";

const make = (set: SceneSet) => Effect.runPromise(makeScenes(set));

/** The bytes of every file below a folder, by path. */
const contents = async (dir: string, below = ""): Promise<[string, string][]> => {
  const entries = await Array.fromAsync(Deno.readDir(join(dir, below)));
  const lists = await Promise.all(entries.map(async ({ name, isDirectory }): Promise<[string, string][]> => {
    const path = join(below, name);
    return isDirectory ? contents(dir, path) : [[path, (await Deno.readFile(join(dir, path))).toString()]];
  }));
  return lists.flat().sort();
};

Deno.test(
  "makeScenes() writes the same bytes for the same parameters, others for another seed",
  inTestFolder(async (dir) => {
    const set = { seed: 5, train: 6, val: 2, size: 64 };
    assert.equal(await make({ ...set, dir: join(dir, "a") }), true);
    assert.equal(await make({ ...set, dir: join(dir, "b") }), true);
    assert.equal(await make({ ...set, dir: join(dir, "c"), seed: 6 }), true);
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((name) => contents(join(dir, name))));
    assert.equal(a.length, 2 * 8 + 3);
    assert.deepEqual(a, b);
    assert.deepEqual(a.map(([path]) => path), c.map(([path]) => path));
    assert.ok(a.every(([path, bytes], i) => !path.endsWith(".jpg") || bytes !== c[i][1]));
  }),
);

Deno.test(
  "makeScenes() keeps a set that is there, replaces one of other parameters, touches nothing else",
  inTestFolder(async (dir) => {
    const set = { dir: join(dir, "scenes"), seed: 5, train: 1, val: 1, size: 32 };
    assert.equal(await make(set), true);
    assert.equal(await make(set), false);
    assert.equal(await make({ ...set, val: 2 }), true);
    assert.deepEqual((await contents(dir)).length, 2 * 3 + 3);

    await Deno.remove(join(set.dir, "scenes.json"));
    const error = await Effect.runPromise(Effect.flip(makeScenes(set)));
    assert.match(error.message, /Cannot make scenes in ".*": other files are there/);
    assert.equal((await contents(dir)).length, 2 * 3 + 2);
  }),
);

Deno.test(
  "makeScenes() annotates what the pictures show",
  inTestFolder(async (dir) => {
    await make({ dir, seed: 1, train: 40, val: 1, size: 64 });
    const annotations = join(dir, "annotations");
    const file = await Deno.readTextFile(join(annotations, "instances_train2017.json"));
    const coco = Schema.decodeUnknownSync(Schema.fromJsonString(CocoInstances))(file);
    assert.equal(coco.images.length, 40);
    assert.equal(new Set(coco.annotations.map(({ id }) => id)).size, coco.annotations.length);
    assert.deepEqual(coco.categories.map(({ id, name }) => [id, name]), [
      [1, "disc"],
      [2, "square"],
      [3, "star"],
      [4, "ring"],
    ]);

    const seen = new Set<number>();
    for (const { id, file_name, width, height } of coco.images) {
      const picture = await sharp(join(dir, "train2017", file_name)).metadata();
      assert.deepEqual([picture.format, picture.width, picture.height], ["jpeg", width, height]);
      const map = join(annotations, "stuff_train2017_pixelmaps", file_name.replace(".jpg", ".png"));
      const labels = await sharp(map).toColourspace("b-w").raw().toBuffer();
      assert.equal(labels.length, width * height);

      // The objects' masks put together are the map, less its two grounds.
      const drawn = new Uint8Array(labels.length);
      for (const { image_id, category_id, segmentation, area, bbox } of coco.annotations) {
        if (image_id !== id) continue;
        const pixels = [...maskOf(segmentation).entries()].filter(([, inside]) => inside).map(([i]) => i);
        assert.equal(pixels.length, area);
        const [columns, rows] = [pixels.map((i) => i % width), pixels.map((i) => Math.floor(i / width))];
        const [left, top] = [Math.min(...columns), Math.min(...rows)];
        assert.deepEqual(bbox, [left, top, Math.max(...columns) + 1 - left, Math.max(...rows) + 1 - top]);
        for (const i of pixels) {
          assert.equal(drawn[i], 0, "masks do not overlap");
          drawn[i] = category_id;
        }
      }
      assert.deepEqual(drawn, Uint8Array.from(labels, (label) => label <= 4 ? label : 0));
      labels.forEach((label) => seen.add(label));
    }
    assert.deepEqual([...seen].sort(), sceneClasses.map((_, i) => i + 1));
  }),
);
