import assert from "node:assert/strict";
import { randomStream } from "../../../data/random/random.ts";
import {
  chooseBox,
  drawBox,
  drawDistortions,
  drawFlip,
  isAccepted,
  resizedSize,
  scaledLimits,
} from "./draws.ts";

const draws = <A>(count: number, draw: (i: number) => A) => Array.from({ length: count }, (_, i) => draw(i));

Deno.test("drawBox() reaches every place of a larger image, and takes all of a smaller one", () => {
  const crop = { width: 4, height: 3 };
  const boxes = draws(400, (i) => drawBox(randomStream(1, i), { width: 6, height: 5 }, crop));
  assert.deepEqual([...new Set(boxes.map(([top]) => top))].sort(), [0, 1, 2]);
  assert.deepEqual([...new Set(boxes.map(([, left]) => left))].sort(), [0, 1, 2]);
  assert.ok(boxes.every(([, , height, width]) => height === 3 && width === 4));
  assert.deepEqual(drawBox(randomStream(1), { width: 9, height: 2 }, crop).slice(2), [2, 4]);
  assert.deepEqual(drawBox(randomStream(1), { width: 2, height: 2 }, crop), [0, 0, 2, 2]);
});

Deno.test("chooseBox() judges ten boxes and takes the eleventh unseen", () => {
  for (const [accepted, taken, judged] of [[0, 0, 1], [9, 9, 10], [10, 10, 10], [99, 10, 10]]) {
    let next = 0, seen = 0;
    const [top] = chooseBox(() => [next++, 0, 1, 1], ([top]) => (seen++, top === accepted));
    assert.deepEqual([top, seen], [taken, judged]);
  }
});

Deno.test("isAccepted() wants two classes, none with the share or more of the counted pixels", () => {
  const labels = (...counts: readonly (readonly [label: number, count: number])[]) =>
    Uint8Array.from(counts.flatMap(([label, count]) => Array<number>(count).fill(label)));
  assert.ok(isAccepted(labels([0, 74], [3, 26]), 0.75));
  assert.ok(!isAccepted(labels([0, 75], [3, 25]), 0.75));
  assert.ok(isAccepted(labels([0, 7], [3, 3], [255, 1000]), 0.75)); // ignored pixels do not count
  assert.ok(!isAccepted(labels([0, 8], [3, 2], [255, 1000]), 0.75));
  assert.ok(!isAccepted(labels([3, 10]), 0.75) && !isAccepted(labels([255, 10]), 0.75));
  assert.ok(isAccepted(labels([255, 10]), 1) && isAccepted(labels([3, 10]), 1));
});

Deno.test("drawDistortions() draws each change half of the time, within its range, and contrast second or last", () => {
  const all = draws(4000, (i) => drawDistortions(randomStream(2, i)));
  const orders = Map.groupBy(all, (drawn) => drawn.map(([name]) => name).join(" "));
  const second = orders.get("brightness contrast saturation hue")!.length;
  const last = orders.get("brightness saturation hue contrast")!.length;
  assert.equal(second + last, 4000);
  assert.ok(Math.abs(second - 2000) < 150);
  const ranges = { brightness: [-32, 32], contrast: [0.5, 1.5], saturation: [0.5, 1.5], hue: [-18, 17] };
  for (const [name, [low, high]] of Object.entries(ranges)) {
    const values = all.flatMap((drawn) =>
      drawn.filter(([other]) => other === name).map(([, value]) => value)
    );
    const made = values.filter((value) => value !== null);
    assert.ok(Math.abs(made.length - 2000) < 150, name);
    const [least, most] = [Math.min(...made), Math.max(...made)];
    assert.ok(
      least >= low && most <= high && least - low < 0.05 * (high - low),
      `${name}: ${least}, ${most}`,
    );
    assert.ok(high - most < 0.05 * (high - low));
    if (name === "hue") assert.deepEqual([least, most, new Set(made).size], [-18, 17, 36]);
  }
  const flipped = draws(1000, (i) => drawFlip(randomStream(3, i), 0.25)).filter(Boolean).length;
  assert.ok(flipped > 200 && flipped < 300);
});

Deno.test("resizedSize() keeps both sides within limits that are cut off", () => {
  const limits = { longSide: 2049, shortSide: 513 };
  assert.deepEqual(scaledLimits(limits, 1.9999), { longSide: 4097, shortSide: 1025 });
  assert.deepEqual(resizedSize({ width: 500, height: 333 }, limits), { width: 770, height: 513 });
  assert.deepEqual(resizedSize({ width: 2, height: 100_000 }, limits), { width: 1, height: 2049 });
});
