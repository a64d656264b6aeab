import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Result } from "effect";
import { pythonTest } from "../_test_python.ts";
import { randomStream } from "../random/random.ts";
import { type Segmentation, segmentationMask, segmentationSpans, spansArea } from "./coco_mask.ts";

// Polygons with corners in and out of the picture, on and between pixels; masks of long and short runs.
const polygons = Array.from({ length: 60 }, (_, trial) => {
  const random = randomStream(trial);
  const [width, height] = [5 + random.integer(60), 5 + random.integer(60)];
  const corner = (side: number) =>
    trial % 3 === 0 ? random.integer(side + 1) : Math.round(100 * random.uniform(-2, side + 2)) / 100;
  const polygon = () =>
    Array.from({ length: 3 + random.integer(9) }, () => [corner(width), corner(height)]).flat();
  return { width, height, segmentation: Array.from({ length: 1 + trial % 2 }, polygon) };
});

const PYCOCO = `
import json, sys
from pycocotools import mask
out = []
for case in json.loads(sys.argv[1]):
    h, w = case["height"], case["width"]
    rle = mask.merge(mask.frPyObjects(case["segmentation"], h, w))
    out.append({"packed": rle["counts"].decode(), "mask": mask.decode(rle).reshape(-1).tolist()})
print(json.dumps(out))
`;

pythonTest(
  "segmentationMask() fills polygons and unpacks run lengths as COCO's own tools do, to the pixel",
  "pycocotools",
  async (python) => {
    const expected = await python(PYCOCO, JSON.stringify(polygons)) as { packed: string; mask: number[] }[];
    polygons.forEach(({ width, height, segmentation }, i) => {
      const { packed, mask } = expected[i];
      assert.deepEqual([...segmentationMask(segmentation, { width, height })!], mask, `polygon ${i}`);
      const unpacked: Segmentation = { size: [height, width], counts: packed };
      assert.deepEqual([...segmentationMask(unpacked, { width, height })!], mask, `run lengths ${i}`);
    });
  },
);

Deno.test("segmentationMask() fills a polygon that leaves the picture, and reads its string, as recorded from COCO's tools", () => {
  const size = { width: 12, height: 8 };
  const rows = [
    ...["000111000000", "000111110000", "000011111100", "000011111111"],
    ...["000011111111", "000001111111", "000001111110", "000001111000"],
  ];
  const mask = Uint8Array.from(rows.join(""), Number);
  assert.deepEqual(segmentationMask([[2.5, -1.2, 13.7, 4.4, 6.1, 9.9]], size), mask);
  assert.deepEqual(segmentationMask({ size: [8, 12], counts: "h0263M3NO001O0O2O0ON" }, size), mask);
});

Deno.test("segmentationMask() refuses run lengths of another size", () => {
  const size = { width: 3, height: 2 };
  assert.equal(segmentationMask({ size: [2, 3], counts: [1, 2, 2] }, size), null);
  assert.equal(segmentationMask({ size: [3, 2], counts: [1, 2, 3] }, size), null);
  assert.deepEqual(
    segmentationMask({ size: [2, 3], counts: [1, 2, 3] }, size),
    Uint8Array.of(0, 1, 0, 1, 0, 0),
  );
});

// Corners far out of pictures, wide pictures, parts of two corners behind others.
const extremes = Array.from({ length: 60 }, (_, trial) => {
  const random = randomStream(trial, 1);
  const [width, height] = trial % 2 === 0 ? [5 + random.integer(60), 5 + random.integer(60)] : [26_000, 3];
  const corner = (side: number) => {
    const far = random.integer(3) === 0 ? 10 ** (1 + random.integer(5)) : side;
    return Math.round(100 * random.uniform(-far, far + side)) / 100;
  };
  const polygon = (corners: number) =>
    Array.from({ length: corners }, () => [corner(width), corner(height)]).flat();
  const segmentation = Array.from(
    { length: 1 + trial % 4 },
    (_, part) => polygon((part === 2 ? 2 : 3) + random.integer(6)),
  );
  return { width, height, segmentation };
});

pythonTest(
  "segmentationMask() cuts off far corners and joins parts as COCO's own tools do, to the pixel",
  "pycocotools",
  async (python) => {
    const hashes = `
import hashlib, json, sys
from pycocotools import mask
out = []
for case in json.loads(sys.argv[1]):
    h, w = case["height"], case["width"]
    rle = mask.merge(mask.frPyObjects(case["segmentation"], h, w))
    out.append(hashlib.sha256(mask.decode(rle).tobytes(order="C")).hexdigest())
print(json.dumps(out))
`;
    const expected = await python(hashes, JSON.stringify(extremes)) as string[];
    extremes.forEach(({ width, height, segmentation }, i) => {
      const mask = segmentationMask(segmentation, { width, height })!;
      assert.equal(createHash("sha256").update(mask).digest("hex"), expected[i], `polygon ${i}`);
    });
  },
);

Deno.test("segmentationSpans() takes no longer for lines of any length, and refuses numbers that COCO's tools cannot hold", () => {
  const size = { width: 48, height: 32 };
  const failure = (segmentation: unknown) => {
    const result = segmentationSpans(segmentation, size);
    return Result.isFailure(result) ? result.failure : "read";
  };
  const far = 2e8;
  const left = [0, 0, 24, 0, 24, 32, -far, 32]; // the lower left corner is far away
  const [begin] = segmentationMask([left], size)!;
  assert.equal(begin, 1);
  assert.equal(failure([[-far, -far, far, -far, far, far, -far, far]]), "read");
  assert.equal(
    spansArea(Result.getOrThrow(segmentationSpans([[-far, -far, far, -far, far, far, -far, far]], size))),
    48 * 32,
  );
  assert.match(failure([[0, 0, 1e308, 0, 1e308, 1e308]]), /corner at 1e\+308, at most 214748364 is read/);
  assert.match(failure([[0, 0, null, 0, 5, 5]]), /corner that is no number/);
  assert.match(failure([[0, 0, 5, 5]]), /a polygon of 4 numbers, three corners have 6/);
  for (const nothing of [null, undefined, 3, "none", {}, [1, 2, 3, 4, 5, 6], [{}], { size: [32, 48] }]) {
    assert.match(failure(nothing), /segmentation is neither polygons nor run lengths/);
  }
  assert.match(
    failure({ size: [16, 24], counts: [384] }),
    /do not cover 48 x 32 pixels: they are of 24 x 16/,
  );
  for (const counts of [[-1, 1537], [0.5, 1535.5], ["1536"], [2 ** 60], "~~~~", "\u00ff", "0".repeat(100)]) {
    assert.match(failure({ size: [32, 48], counts }), /do not cover|is damaged/);
  }
});
