import assert from "node:assert/strict";
import { IGNORED } from "../../../data/datasets/segmentation/label_source.ts";
import { addToConfusion, noConfusion, percent, segmentationScores } from "./scores.ts";

Deno.test("segmentationScores() leaves 0/0 out of the means, and ignored pixels out of everything", () => {
  const confusion = noConfusion(4);
  // Class 0: 2 of 3 right; class 1: labelled, never right; class 2: only predicted; class 3: nowhere.
  addToConfusion(confusion, {
    labels: [0, 0, 0, 1, IGNORED, IGNORED],
    predictions: [0, 0, 2, 0, 1, 3],
  });
  const { aAcc, mIoU, mAcc, perClass } = segmentationScores(confusion);
  assert.deepEqual(perClass.map(({ iou }) => iou), [2 / 4, 0, 0, null]);
  assert.deepEqual(perClass.map(({ accuracy }) => accuracy), [2 / 3, 0, null, null]);
  assert.deepEqual([aAcc, mIoU, mAcc], [2 / 4, (2 / 4) / 3, (2 / 3) / 2]);
});

Deno.test("segmentationScores() sums counts over maps before it divides", () => {
  const maps = [
    { labels: [0, 0, 0, 0], predictions: [0, 0, 0, 0] }, // alone IoU 1
    { labels: [0, 1], predictions: [1, 1] }, // alone IoU 0 and 1/2
    { labels: [IGNORED, IGNORED], predictions: [1, 0] }, // alone nothing at all
  ];
  const confusion = noConfusion(2);
  for (const map of maps) addToConfusion(confusion, map);
  const { aAcc, mIoU } = segmentationScores(confusion);
  assert.deepEqual([aAcc, mIoU], [5 / 6, (4 / 5 + 1 / 2) / 2]);
  const none = noConfusion(2);
  addToConfusion(none, maps[2]);
  assert.ok([...Object.values(segmentationScores(none))].slice(0, 3).every(Number.isNaN));
});

Deno.test("percent() writes a share with two digits", () => {
  assert.deepEqual([0.34178, 1, null, NaN].map(percent), ["34.18", "100.00", "–", "–"]);
});
