import assert from "node:assert/strict";
import { WEIGHT_BITS } from "../../data/images/resample.ts";
import { packBatch } from "../../pipeline/pretrain/pack.ts";
import { draws, recorded, recordedPicture, size } from "../../pipeline/verify/_test_recording.ts";
import { gpuTest } from "../_test_kit.ts";
import { constant } from "../graph/tensor.ts";
import { evaluatePictures } from "./_test_stages.ts";
import { augmentationRowWords } from "./augmentation_row.ts";
import { cropResize } from "./crop_resize.ts";

gpuTest(
  "cropResize() equals Pillow's crop, resize and mirroring bit for bit, also where the host finishes",
  function* () {
    const samples = draws.map((draw) => ({
      picture: recordedPicture(`decoded/${draw.image}`),
      draw: { views: draw.views, coords: [[0, 0, 1, 1], [0, 0, 1, 1]] as const },
    }));
    // With room for everything, then with filters so short that most pictures are reduced on the host.
    for (const [capacity, maxTaps] of [[2 ** 21, 24], [2 ** 21, 9]]) {
      const { pixels, views } = packBatch(samples, { imageSize: size, maxTaps, capacity });
      const words = augmentationRowWords({ imageSize: size, maxTaps });
      const table = constant(views, [2 * samples.length, words]);
      const got = yield* evaluatePictures(
        cropResize(constant(pixels), table, { imageSize: size, maxTaps, weightBits: WEIGHT_BITS }),
      );
      samples.forEach(({ draw }, n) =>
        draw.views.forEach(({ flip }, side) => {
          const want = recorded(`draw${n}/view${side}/${flip ? "1_flip" : "0_crop"}`).data;
          const at = (side * samples.length + n) * want.length;
          assert.deepEqual(got.slice(at, at + want.length), want, `view ${side} of draw ${n}`);
        })
      );
    }
  },
);
