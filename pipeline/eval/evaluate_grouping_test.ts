import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { testFolder } from "../../data/_test_kit.ts";
import { openLabels } from "../../data/datasets/coco_labels.ts";
import { makeScenes } from "../../data/datasets/scenes.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { input } from "../../ops/graph/tensor.ts";
import { slotMapper, teacherScores } from "../inference/slot_program.ts";
import type { ModelOptions } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { initialState } from "../run/initial_state.ts";
import { adjustedRandIndex } from "./adjusted_rand.ts";
import { colorClusters } from "./color_clusters.ts";
import { evaluateGrouping } from "./evaluate_grouping.ts";
import { scoreGrouping } from "./grouping.ts";
import { labelledPictures } from "./labelled_pictures.ts";

const S = 64, CLASSES = 7;
const model: ModelOptions = { arch: "resnet18", width: 4, dimHidden: 16, dimOut: 8, numPrototypes: 6 };
const teacher = (seed: number) => {
  const state = new StateBuilder();
  teacherScores(state, input("pictures", [1, 64, 64], "u32"), model);
  return initialState(state, seed);
};

gpuTest(
  "evaluateGrouping() scores pictures that pass by as scoreGrouping() does all of them at once",
  function* () {
    const dataDir = join(yield* testFolder, "scenes");
    yield* makeScenes({ dir: dataDir, seed: 5, train: 1, val: 10, size: S });
    const labels = yield* openLabels({
      dataDir,
      split: "val",
      kind: "pixelmaps",
      coarse: false,
      objects: true,
    });
    const evaluation = yield* evaluateGrouping({
      ...{ model, values: teacher(1), labelled: labels.pictures, classes: labels.classes.length },
      ...{ imageSize: S, batch: 4, seed: 2, maxBadImages: 0 }, // batches of 4 do not divide 10
    });

    const scenes = yield* labelledPictures(dataDir);
    const pictures = scenes.map(({ picture }) => picture);
    const frame = { resize: S, crop: S, batch: 5 };
    const slots = [
      ...yield* Effect.forEach([1, 2], (seed) =>
        Effect.gen(function* () {
          const map = yield* slotMapper(model, teacher(seed), frame);
          return (yield* map(pictures)).map(({ slots }) => slots);
        })),
      colorClusters(pictures, { clusters: 6, seed: 2 }),
      colorClusters(pictures, { clusters: CLASSES, seed: 2 }),
    ];
    const counts = [6, 6, 6, CLASSES];
    const objects = yield* Effect.forEach(
      labels.pictures,
      ({ read }) => Effect.map(read({ width: S, height: S }), ({ objects }) => objects!),
    );
    assert.equal(evaluation.results.length, slots.length);
    slots.forEach((maps, m) => {
      const { method, foregroundAri, perClass, slotOf: _, ...score } = evaluation.results[m];
      const { perClass: expectedClasses, slotOf: __, ...expected } = scoreGrouping(
        scenes.map(({ labels }, i) => ({ labels, slots: maps[i] })),
        { slots: counts[m], classes: CLASSES },
      );
      assert.deepEqual(score, { slots: counts[m], ...expected }, method);
      assert.deepEqual(perClass.slice(0, CLASSES), expectedClasses);

      const indices = objects.flatMap((all, i) => {
        const places = [...all.keys()].filter((pixel) => all[pixel] > 0);
        const inPicture = places.map((pixel) => all[pixel]);
        if (new Set(inPicture).size < 2) return [];
        return [adjustedRandIndex(inPicture, places.map((pixel) => maps[i][pixel]))];
      });
      assert.equal(evaluation.picturesWithObjects, indices.length);
      const mean = indices.reduce((sum, index) => sum + index, 0) / indices.length;
      assert.ok(Math.abs(foregroundAri! - mean) < 1e-12, method);
    });

    // The pictures that are shown are the ones that they are said to be.
    for (const { file, accuracy, labels: truth, slots: shown } of [...evaluation.best, ...evaluation.worst]) {
      const i = labels.pictures.findIndex((picture) => picture.file === file);
      assert.deepEqual([...truth], [...scenes[i].labels]);
      assert.deepEqual([...shown], [...slots[0][i]]);
      const { slotOf } = evaluation.results[0];
      const right = scenes[i].labels.filter((label, pixel) => slotOf[label - 1] === shown[pixel]).length;
      assert.ok(Math.abs(accuracy - right / S / S) < 1e-12, file);
    }
  },
);
