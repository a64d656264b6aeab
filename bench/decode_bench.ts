import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect, Stream } from "effect";
import sharp from "sharp";
import { listImages } from "../data/datasets/image_list.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { release } from "../data/images/release.ts";
import { input } from "../ops/graph/tensor.ts";
import { AUGMENTATION_ROW, augmentationRowWords } from "../ops/image/augmentation_row.ts";
import { compile, type Program } from "../ops/runtime/program.ts";
import { IMAGENET } from "../pipeline/model/resnet.ts";
import { augment, packingFor } from "../pipeline/pretrain/augment.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { type Batch, batches } from "../pipeline/pretrain/decode.ts";
import { bench } from "./_kit.ts";
import { sampled } from "./_sample.ts";

const BATCH = 16, PICTURE = 480, SIZE = 224;
const dataDir = "runs/bench/scenes";
const packing = packingFor(SIZE, BATCH, 2 ** 27);

/** Batches as a run with default options gets them, of drawn scenes; the first one is looked at. */
const decoded = Effect.gen(function* () {
  yield* makeScenes({ dir: dataDir, seed: 0, train: 2 * BATCH, val: 0, size: PICTURE });
  const images = yield* listImages({ dataset: "COCO", dataDir });
  const { capacity, maxTaps } = packing;
  const config = { ...(yield* configure(null)), batchSize: BATCH, imageSize: SIZE, maxTaps };
  const pull = yield* Stream.toPull(batches(images, { ...config, pixelCapacity: capacity }));
  yield* assertHoldsPixels((yield* pull)[0]);
  return pull;
});

bench(
  `decoding, ${PICTURE}² JPEG`,
  { count: BATCH, of: "pictures" },
  Effect.gen(function* () {
    const pull = yield* decoded;
    return Effect.fnUntraced(function* (count: number) {
      for (let batch = 0; batch < count; batch++) {
        for (const { pixels, views, coords, flips } of yield* pull) release(pixels, views, coords, flips);
      }
    });
  }),
);

bench(
  `decoding and augmentation, ${PICTURE}² JPEG to two views of ${SIZE}²`,
  { count: BATCH, of: "pictures" },
  Effect.gen(function* () {
    const pull = yield* decoded;
    const views = augment(
      input("pixels", [packing.capacity / 4], "u32"),
      input("views", [2 * BATCH, augmentationRowWords(packing)], "u32"),
      packing,
    );
    const program = yield* compile({ label: "augmentation", outputs: { sample: sampled(views) } });
    const run = Effect.fnUntraced(function* () {
      const [{ pixels, views, coords, flips }] = yield* pull;
      const outputs = yield* program.run({ pixels, views });
      release(pixels, views, coords, flips);
      return outputs;
    });
    assertNormalised((yield* yield* run()).sample);
    return Effect.fnUntraced(function* (count: number) {
      // One batch behind, as in a run: the device works while the next batch is waited for.
      let outputs: Effect.Success<ReturnType<Program["run"]>> | null = null;
      for (let batch = 0; batch < count; batch++) {
        const next = yield* run();
        if (outputs !== null) yield* outputs;
        outputs = next;
      }
      yield* outputs!;
    });
  }),
);

/** A batch begins with rows of its first picture, as the image decoder gives them to anyone. */
const assertHoldsPixels = Effect.fnUntraced(function* ({ images, pixels, views }: Batch) {
  const picture = yield* Effect.promise(() => sharp(images[0]).raw().toBuffer());
  const stride = views[AUGMENTATION_ROW.stride];
  assert.equal(stride, 3 * PICTURE);
  const at = picture.indexOf(Buffer.from(pixels.buffer, 0, 10 * stride));
  assert.ok(at >= 0 && at % stride === 0, "the batch does not hold rows of its first picture");
});

/** Views are whole numbers of [0, 255], shifted and scaled by channel. */
const assertNormalised = (rows: Float32Array) => {
  const { mean, std } = IMAGENET;
  const pixels = rows.map((value, at) => 255 * (value * std[at % 3] + mean[at % 3]));
  const wrong = pixels.findIndex((pixel) =>
    !(Math.abs(pixel - Math.round(pixel)) < 1e-3 && pixel > -0.5 && pixel < 255.5)
  );
  assert.equal(wrong, -1, `value ${wrong} of the views is that of a pixel of ${pixels[wrong]}`);
  assert.ok(new Set(pixels.map(Math.round)).size > 4, "the views show nothing");
};
