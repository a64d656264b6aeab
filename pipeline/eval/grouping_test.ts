import assert from "node:assert/strict";
import { scoreGrouping } from "./grouping.ts";

const counts = { slots: 4, classes: 2 };

Deno.test("scoreGrouping() gives 1 to slots that are the classes under other numbers", () => {
  const maps = [{ labels: [1, 1, 2, 2], slots: [3, 3, 0, 0] }, { labels: [2, 1], slots: [0, 3] }];
  assert.deepEqual(scoreGrouping(maps, counts), { matched: 1, majority: 1, slotOf: [3, 0] });
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
  assert.equal(scoreGrouping([{ labels: [1, 0], slots: [2, 2] }], counts).matched, 1);
});
