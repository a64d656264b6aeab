import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { testFolder, writeImage } from "../../data/_test_kit.ts";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import { randomStream } from "../../data/random/random.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { cellColors } from "../inference/descriptors.ts";
import { cellLabels, segmentationProbe, segmentationScore } from "./segmentation_probe.ts";

const S = 32, GRID = 4, CLASSES = 3;
const COLORS = [[220, 30, 30], [30, 200, 40], [40, 60, 220]];

/** Pictures of cells in three noisy colours; a class is a colour, or a number at random. One cell in ten is unlabelled. */
const drawn = (count: number, seed: number, labelled: "by colour" | "at random") =>
  Effect.gen(function* () {
    const folder = yield* testFolder;
    return yield* Effect.forEach(Array.from({ length: count }, (_, i) => i), (i) =>
      Effect.promise(async (): Promise<LabelledFile> => {
        const random = randomStream(seed, i);
        const cells = Array.from({ length: GRID ** 2 }, () =>
          random.integer(CLASSES));
        const numbers = cells.map((color) =>
          random.uniform() < 0.1 ? 0 : 1 + (labelled === "by colour" ? color : random.integer(CLASSES))
        );
        const cellOf = (pixel: number) =>
          GRID * Math.floor(Math.floor(pixel / S) * GRID / S) + Math.floor(pixel % S * GRID / S);
        const rgb = Uint8Array.from(
          { length: 3 * S * S },
          (_, j) => COLORS[cells[cellOf(Math.floor(j / 3))]][j % 3] + random.integer(30),
        );
        const file = join(folder, `${i}.png`);
        await writeImage(file, { width: S, height: S, rgb });
        const labels = Uint16Array.from({ length: S * S }, (_, j) => numbers[cellOf(j)]);
        const map = { width: S, height: S, labels, objects: null };
        return { file, from: folder, read: () => Effect.succeed(map) };
      }));
  });

const descriptors = [{ method: "colour and place", descriptor: cellColors(S, GRID) }];
const options = {
  ...{ classes: CLASSES + 1, descriptors, imageSize: S, batch: 4, maxBadImages: 0 }, // one class that never occurs
  training: { epochs: 4, seed: 1, rate: 2, momentum: 0.9, weightDecay: 0 },
};

gpuTest(
  "segmentationProbe() learns classes by colour, the same with and without memory for features",
  function* () {
    const train = yield* drawn(30, 1, "by colour"), val = yield* drawn(9, 2, "by colour");
    const { results: [score], best, worst } = yield* segmentationProbe({ ...options, train, val });
    // Scores are enlarged bilinearly: edges are not exact.
    assert.ok(score.miou > 0.75, String(score.miou));
    assert.equal(score.perClass[CLASSES], null);
    assert.ok(best[0].accuracy >= worst[0].accuracy);
    const again = yield* segmentationProbe({ ...options, train, val, memory: 0 });
    assert.deepEqual(again.results, [score]);
  },
);

gpuTest("segmentationProbe() learns nothing about other pictures from labels at random", function* () {
  const train = yield* drawn(30, 1, "at random"), val = yield* drawn(9, 2, "by colour");
  const { results: [{ accuracy }] } = yield* segmentationProbe({ ...options, train, val });
  assert.ok(accuracy < 0.6, String(accuracy));
});

Deno.test("cellLabels() takes the label of most labelled pixels", () => {
  // deno-fmt-ignore
  const labels = Uint16Array.of(
    0, 0, 2, 1,
    0, 3, 1, 1,
    5, 5, 0, 0,
    4, 5, 0, 0,
  );
  assert.deepEqual([...cellLabels(labels, 4, 2)], [3, 1, 5, 0]);
});

Deno.test("segmentationScore() is what counting pixel by pixel gives", () => {
  for (let trial = 0; trial < 50; trial++) {
    const random = randomStream(trial);
    const classes = 1 + random.integer(5);
    const pixels = Array.from({ length: 60 }, () => [random.integer(classes), random.integer(classes)]);
    const overlap = Array.from({ length: classes + 1 }, () => new Float64Array(classes + 1));
    pixels.forEach(([label, found]) => overlap[label][found]++);
    const ious = [...new Set(pixels.map(([label]) => label))].map((c) =>
      pixels.filter(([label, found]) => label === c && found === c).length /
      pixels.filter(([label, found]) => label === c || found === c).length
    );
    const { miou, accuracy, perClass } = segmentationScore(overlap);
    assert.ok(Math.abs(miou - ious.reduce((sum, iou) => sum + iou, 0) / ious.length) < 1e-12);
    assert.equal(accuracy, pixels.filter(([label, found]) => label === found).length / pixels.length);
    assert.equal(perClass[classes], null);
  }
});
