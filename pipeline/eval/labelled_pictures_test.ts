import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { sceneClasses } from "../../data/datasets/draw_scene.ts";
import { makeScenes } from "../../data/datasets/scenes.ts";
import { colorClusters } from "./color_clusters.ts";
import { labelledPictures, scorePictures } from "./labelled_pictures.ts";

const CLASSES = sceneClasses.length;

const scenesIn = (dir: string, val: number) =>
  Effect.gen(function* () {
    yield* makeScenes({ dir, seed: 3, train: 1, val, size: 64 });
    return yield* labelledPictures(dir);
  }).pipe(Effect.runPromise);

Deno.test(
  "scorePictures() finds nothing wrong with the classes of drawn scenes: no two objects are of one class",
  inTestFolder(async (folder) => {
    const scenes = await scenesIn(folder, 30);
    const truth = scenes.map(({ labels }) => labels.map((label) => label - 1));
    const { matched, majority, foregroundAri } = scorePictures(truth, scenes, {
      slots: CLASSES,
      classes: CLASSES,
    });
    assert.deepEqual([matched, majority, foregroundAri], [1, 1, 1]);
  }),
);

Deno.test(
  "drawn scenes cannot be sorted by colour: its clusters match classes little better than those of other scenes",
  inTestFolder(async (folder) => {
    const scenes = await scenesIn(folder, 80);
    const pictures = scenes.map(({ picture }) => picture);
    for (const clusters of [CLASSES, 32]) {
      const maps = colorClusters(pictures, { clusters, seed: 1 });
      const others = maps.map((_, i) => maps[(i + 1) % maps.length]);
      const [own, chance] = [maps, others].map((each) =>
        scorePictures(each, scenes, { slots: clusters, classes: CLASSES }).matched
      );
      assert.ok(
        own < chance + 0.02,
        `${own.toFixed(3)} with ${clusters} clusters, by chance ${chance.toFixed(3)}`,
      );
    }
  }),
);
