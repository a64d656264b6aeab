import assert from "node:assert/strict";
import { Effect, Stream } from "effect";
import { Buffer } from "node:buffer";
import sharp from "sharp";
import { listImages } from "../data/image_list.ts";
import { release } from "../data/release.ts";
import { makeScenes } from "../data/scenes.ts";
import { VIEW } from "../data/view_table.ts";
import { packingFor } from "../pipeline/augment.ts";
import { configure } from "../pipeline/config.ts";
import { type Batch, batches } from "../pipeline/decode.ts";
import { bench } from "./_kit.ts";

const BATCH = 16, PICTURE = 480, SIZE = 224;
const dataDir = "runs/bench/scenes";

bench(
  `decoding, ${PICTURE}² JPEG`,
  { count: BATCH, of: "pictures" },
  Effect.gen(function* () {
    yield* makeScenes({ dir: dataDir, seed: 0, train: 2 * BATCH, val: 0, size: PICTURE });
    const images = yield* listImages({ dataset: "COCO", dataDir });
    const { capacity, maxTaps } = packingFor(SIZE, BATCH, 2 ** 27);
    const config = { ...(yield* configure(null)), batchSize: BATCH, imageSize: SIZE, maxTaps };
    const pull = yield* Stream.toPull(batches(images, { ...config, pixelCapacity: capacity }));
    yield* assertHoldsPixels((yield* pull)[0]);
    return Effect.fnUntraced(function* (count: number) {
      for (let batch = 0; batch < count; batch++) {
        for (const { pixels, views, coords, flips } of yield* pull) release(pixels, views, coords, flips);
      }
    });
  }),
);

/** A batch begins with rows of its first picture, as the image decoder gives them to anyone. */
const assertHoldsPixels = Effect.fnUntraced(function* ({ images, pixels, views }: Batch) {
  const picture = yield* Effect.promise(() => sharp(images[0]).raw().toBuffer());
  const stride = views[VIEW.stride];
  assert.equal(stride, 3 * PICTURE);
  const at = picture.indexOf(Buffer.from(pixels.buffer, 0, 10 * stride));
  assert.ok(at >= 0 && at % stride === 0, "the batch does not hold rows of its first picture");
});
