import assert from "node:assert/strict";
import { randomStream } from "../../data/random/random.ts";
import { scoreGrouping } from "./grouping.ts";

const counts = { slots: 4, classes: 2 };

Deno.test("scoreGrouping() gives 1 to slots that are the classes under other numbers", () => {
  const maps = [{ labels: [1, 1, 2, 2], slots: [3, 3, 0, 0] }, { labels: [2, 1], slots: [0, 3] }];
  const { perClass, ...score } = scoreGrouping(maps, counts);
  const accuracy = { matched: 1, majority: 1 };
  assert.deepEqual(score, { matched: 1, majority: 1, accuracy, slotOf: [3, 0], classOf: [1, 0, 0, 0] });
  assert.deepEqual(perClass, [3, 3].map((pixels) => ({ pixels, matched: 1, majority: 1 })));
});

Deno.test("scoreGrouping() matches one slot a class, and by majority several", () => {
  // Class 1 is split between slots 0 and 1, class 2 between 2 and, for one pixel of three, 1.
  const maps = [{ labels: [1, 1, 1, 1, 2, 2, 2], slots: [0, 0, 1, 1, 1, 2, 2] }];
  const { matched, majority, slotOf } = scoreGrouping(maps, counts);
  assert.deepEqual(slotOf, [0, 2]);
  assert.equal(matched, (2 / 4 + 2 / 3) / 2);
  assert.equal(majority, (4 / 5 + 2 / 3) / 2);
});

Deno.test("scoreGrouping() gives up the best slot of one class where both classes together gain by it", () => {
  // Slot 0 suits class 1 best, but for class 2 there is no other.
  const maps = [{ labels: [1, 1, 1, 1, 1, 2, 2, 2, 2], slots: [0, 0, 0, 1, 1, 0, 0, 0, 0] }];
  const { slotOf, matched } = scoreGrouping(maps, counts);
  assert.deepEqual(slotOf, [1, 0]);
  assert.equal(matched, (2 / 5 + 4 / 7) / 2);
});

Deno.test("scoreGrouping() counts slots over all pictures, and leaves out unknown pixels and classes not shown", () => {
  // In each picture by itself, slots and classes agree.
  const maps = [{ labels: [1, 2], slots: [0, 1] }, { labels: [1, 2], slots: [1, 0] }];
  assert.equal(scoreGrouping(maps, counts).matched, 1 / 3);
  const { matched, perClass } = scoreGrouping([{ labels: [1, 0], slots: [2, 2] }], counts);
  assert.equal(matched, 1);
  assert.deepEqual(perClass, [{ pixels: 1, matched: 1, majority: 1 }, null]);
});

Deno.test("scoreGrouping() finds what trying all matchings and counting pixel by pixel finds", () => {
  for (let trial = 0; trial < 60; trial++) {
    const random = randomStream(trial);
    const [slots, classes] = [1 + random.integer(5), 1 + random.integer(4)];
    const maps = Array.from({ length: 1 + random.integer(3) }, () => ({
      labels: Array.from({ length: 40 }, () => random.integer(classes + 1)),
      slots: Array.from({ length: 40 }, () => random.integer(slots)),
    }));
    const pixels = maps.flatMap(({ labels, slots }) => labels.map((label, i) => ({ label, slot: slots[i] })))
      .filter(({ label }) => label > 0);
    const shown = [...new Set(pixels.map(({ label }) => label))];
    /** IoU of a class with the pixels that a test picks. */
    const iou = (label: number, picked: (slot: number) => boolean) =>
      pixels.filter((pixel) => pixel.label === label && picked(pixel.slot)).length /
      pixels.filter((pixel) => pixel.label === label || picked(pixel.slot)).length;
    const best = (at: number, free: readonly number[]): number =>
      at === shown.length ? 0 : Math.max(
        best(at + 1, free),
        ...free.map((slot) =>
          iou(shown[at], (other) => other === slot) + best(at + 1, free.filter((other) => other !== slot))
        ),
      );
    const score = scoreGrouping(maps, { slots, classes });
    const all = Array.from({ length: slots }, (_, slot) => slot);
    assert.ok(Math.abs(score.matched - best(0, all) / shown.length) < 1e-12, `trial ${trial}`);
    const majority = shown.map((label) => iou(label, (slot) => score.classOf[slot] === label - 1));
    assert.ok(
      Math.abs(score.majority - majority.reduce((sum, value) => sum + value, 0) / shown.length) < 1e-12,
    );
    const right = (picked: (slot: number, label: number) => boolean) =>
      pixels.filter(({ slot, label }) => picked(slot, label)).length / pixels.length;
    assert.equal(score.accuracy.matched, right((slot, label) => score.slotOf[label - 1] === slot));
    assert.equal(score.accuracy.majority, right((slot, label) => score.classOf[slot] === label - 1));
  }
});
