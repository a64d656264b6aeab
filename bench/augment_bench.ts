import { Effect } from "effect";
import { drawScene } from "../data/datasets/draw_scene.ts";
import { type Box, cropResize } from "../data/images/resample.ts";
import { randomStream } from "../data/random/random.ts";
import { assertClose } from "../ops/_test_kit.ts";
import { constant } from "../ops/graph/tensor.ts";
import { augmentationRowWords } from "../ops/image/augmentation_row.ts";
import { compile, evaluate } from "../ops/runtime/program.ts";
import { IMAGENET } from "../pipeline/model/resnet.ts";
import { augment, packingFor } from "../pipeline/pretrain/augment.ts";
import { drawTwoCrops } from "../pipeline/pretrain/draws.ts";
import { packBatch, type Sample } from "../pipeline/pretrain/pack.ts";
import { bench } from "./_kit.ts";
import { sampled } from "./_sample.ts";
import { runsOf } from "./_timing.ts";

const BATCH = 8, PICTURE = 400, VIEW = 224;

bench(
  `augmentation of ${BATCH} pictures, ${PICTURE}² to two views of ${VIEW}²`,
  { count: BATCH, of: "pictures" },
  Effect.gen(function* () {
    const packing = packingFor(VIEW, BATCH, 2 ** 27);
    const samples = Array.from({ length: BATCH }, (_, i): Sample => {
      const picture = { width: PICTURE, height: PICTURE, rgb: drawScene(randomStream(1, i), PICTURE).rgb };
      return { picture, draw: drawTwoCrops(randomStream(2, i), picture, { minScale: 0.08 }) };
    });
    // The first view of the first picture is only cropped and resized, so that the host can tell what it must be.
    const box: Box = [30, 20, 300, 350];
    const plain = { box, flip: false, jitter: [], gray: false, blur: null, solarize: false };
    const [{ picture, draw }] = samples;
    samples[0] = { picture, draw: { ...draw, views: [plain, draw.views[1]] } };

    const packed = packBatch(samples, packing);
    const views = constant(packed.views, [2 * BATCH, augmentationRowWords(packing)]);
    const result = augment(constant(packed.pixels), views, packing);

    const want = Float32Array.from(
      cropResize(picture, box, VIEW).rgb,
      (value, at) => (value / 255 - IMAGENET.mean[at % 3]) / IMAGENET.std[at % 3],
    );
    assertClose((yield* evaluate(result)).subarray(0, want.length), want, { what: "the first view" });
    return runsOf(yield* compile({ label: "augmentation", outputs: { sample: sampled(result) } }));
  }),
);
