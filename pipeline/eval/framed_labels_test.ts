import assert from "node:assert/strict";
import { framed } from "../inference/framed.ts";
import { framedLabels } from "./framed_labels.ts";

Deno.test("framedLabels() keeps labels where framed() keeps the pixels that they belong to", () => {
  // Four blocks of a colour each, off the middle, so that a shift or a swap of the axes would show.
  const [width, height] = [90, 60];
  const labels = Uint16Array.from(
    { length: width * height },
    (_, i) => 1 + Number(i % width >= 34) + 2 * Number(Math.floor(i / width) >= 22),
  );
  // Red tells left from right, green upper from lower.
  const sides = (label: number) =>
    [(label - 1) % 2, Math.floor((label - 1) / 2), 0].map((side) => 200 * side);
  const rgb = Uint8Array.from([...labels].flatMap(sides));
  for (const frame of [{ resize: 40, crop: 30 }, { resize: 60, crop: 60 }, { resize: 150, crop: 141 }]) {
    const picture = framed({ width, height, rgb }, frame);
    const { labels: found, objects } = framedLabels({ width, height, labels, objects: null }, frame);
    assert.equal(objects, null);
    let blended = 0; // pixels on an edge, which belong to both sides
    found.forEach((label, i) => {
      const color = [...picture.rgb.subarray(3 * i, 3 * i + 3)];
      if (color.every((value) => value % 200 === 0)) assert.deepEqual(color, sides(label), `pixel ${i}`);
      else blended++;
    });
    assert.ok(blended < 8 * frame.crop, `${blended} of ${found.length}`);
  }
});
