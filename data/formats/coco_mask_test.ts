import assert from "node:assert/strict";
import { pythonTest } from "../_test_python.ts";
import { randomStream } from "../random/random.ts";
import { type Segmentation, segmentationMask } from "./coco_mask.ts";

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
