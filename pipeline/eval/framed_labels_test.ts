import assert from "node:assert/strict";
import { Effect } from "effect";
import type { LabelledFile } from "../../data/datasets/coco_labels.ts";
import type { Size } from "../../data/images/resize.ts";
import { framed } from "../inference/framed.ts";
import { expectLabelled, framedLabels, readFramedLabels } from "./framed_labels.ts";

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

Deno.test("readFramedLabels() tells each file the size of its own picture, one after the other", () => {
  const asked: string[] = [];
  const labelled = ["a", "b"].map((file): LabelledFile => ({
    file,
    from: "labels",
    read: (picture: Size) => {
      asked.push(`${file} ${picture.width} x ${picture.height}`);
      const labels = new Uint16Array(picture.width * picture.height).fill(asked.length);
      return Effect.succeed({ ...picture, labels, objects: null });
    },
  }));
  const sizes = Uint32Array.of(4, 2, 3, 5);
  const maps = Effect.runSync(readFramedLabels(labelled, sizes, { resize: 2, crop: 2 }));
  assert.deepEqual(asked, ["a 4 x 2", "b 3 x 5"]);
  assert.deepEqual(maps.map(({ labels }) => [...labels]), [[1, 1, 1, 1], [2, 2, 2, 2]]);
});

Deno.test("expectLabelled() refuses to score pictures of which no pixel is labelled", () => {
  const labelled: LabelledFile[] = [{ file: "a.jpg", from: "labels.json", read: () => Effect.never }];
  assert.equal(Effect.runSync(expectLabelled(labelled, [new Float64Array([0, 1])])), undefined);
  for (const overlap of [[], [new Float64Array(3), new Float64Array(3)]]) {
    const { message } = Effect.runSync(Effect.flip(expectLabelled(labelled, overlap)));
    assert.match(message, /"labels.json": no pixel of its 1 pictures is of a known class/);
  }
});
