import assert from "node:assert/strict";
import { randomStream } from "../../data/random/random.ts";
import { gpuTest } from "../_test_kit.ts";
import { asPictures, assertEqualsRecorded, asTable, evaluatePictures } from "./_test_stages.ts";
import { gaussianBlur } from "./gaussian_blur.ts";

gpuTest("gaussianBlur() equals Pillow's bit for bit", function* () {
  yield* assertEqualsRecorded("blur", gaussianBlur);
});

gpuTest(
  "gaussianBlur() keeps even areas, leaves other views alone, and copes with boxes beyond the picture",
  function* () {
    const random = randomStream(5);
    const noise = { width: 6, height: 6, rgb: Uint8Array.from({ length: 108 }, () => random.integer(256)) };
    const even = { ...noise, rgb: new Uint8Array(108).fill(201) };
    const view = { box: [0, 0, 1, 1], flip: false, jitter: [], gray: false, solarize: false } as const;
    const views = asTable([{ ...view, blur: 9 }, { ...view, blur: null }, { ...view, blur: 30 }]);
    const got = yield* evaluatePictures(gaussianBlur(asPictures([even, noise, noise]), views));
    assert.deepEqual(got.slice(0, 108), even.rgb);
    assert.deepEqual(got.slice(108, 216), noise.rgb);
    const blurred = got.slice(216);
    assert.ok(Math.max(...blurred) - Math.min(...blurred) < 100, "far less contrast than noise has");
  },
);
