import assert from "node:assert/strict";
import { gpuTest } from "../../ops/_test_kit.ts";
import { constant } from "../../ops/graph/tensor.ts";
import { augmentationRowWords } from "../../ops/image/augmentation_row.ts";
import { evaluate } from "../../ops/runtime/program.ts";
import { draws, recorded, recordedPicture, size } from "../verify/_test_recording.ts";
import { augment } from "./augment.ts";
import { sharedRegion } from "./draws.ts";
import { packBatch } from "./pack.ts";

gpuTest(
  "augment() makes from pictures what PyTorch's loader makes, through all operations at once",
  function* () {
    const samples = draws.map(({ image, views }) => ({
      picture: recordedPicture(`decoded/${image}`),
      draw: { views, coords: sharedRegion(views) },
    }));
    const table = { imageSize: size, maxTaps: 24 };
    const packed = packBatch(samples, { ...table, capacity: 2 ** 21 });
    const views = constant(packed.views, [2 * samples.length, augmentationRowWords(table)]);
    const got = yield* evaluate(augment(constant(packed.pixels), views, table));

    draws.forEach((_, n) =>
      [0, 1].forEach((side) => {
        const want = recorded(`draw${n}/view${side}/tensor`).data; // [3, S, S]
        const area = size * size, first = (side * draws.length + n) * area;
        for (let i = 0; i < want.length; i++) {
          const value = got[3 * (first + i % area) + Math.floor(i / area)];
          assert.equal(value, want[i], `value ${i} of view ${side} of draw ${n}`);
        }
      })
    );
    assert.deepEqual([...packed.coords.subarray(0, 4)], [...recorded("draw0/coords").data].slice(0, 4));
  },
);
