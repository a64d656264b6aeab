import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger, Stream } from "effect";
import { inTestFolder, writeNoise } from "../../../data/_test_kit.ts";
import { setOptions, writeLabels, writeTexts } from "../../../data/datasets/segmentation/_test_sets.ts";
import { openSegmentation } from "../../../data/datasets/segmentation/open_segmentation.ts";
import type { SegmentationSample } from "../../../data/datasets/segmentation/segmentation_set.ts";
import { batches, type SegmentationBatchOptions } from "./batches.ts";

const COUNT = 10, CLASSES = 5, SIDE = 16;
const options: SegmentationBatchOptions = {
  batchSize: 4,
  seed: 7,
  numWorkers: 2,
  maxBadImages: 0.3,
  longSide: 60,
  shortSide: 20,
  minRatio: 0.5,
  maxRatio: 2,
  cropSize: SIDE,
  maxClassShare: 0.75,
  flip: 0.5,
  colorDistortion: true,
  dropout: 0.25,
  headChannels: 64,
  auxiliaryWeight: 0.4,
  auxiliaryChannels: 8,
};

/** Ten small pictures of noise of mixed sizes, with stripes of classes. */
const withSamples = (
  test: (samples: readonly SegmentationSample[], folder: string) => Promise<void>,
) =>
  inTestFolder(async (folder) => {
    const size = (i: number) => [20 + 3 * i, 45 - 2 * i] as const;
    await writeNoise(join(folder, "images/train"), { count: COUNT, size });
    for (let i = 0; i < COUNT; i++) {
      await writeLabels(join(folder, `labels/train/${i}.png`), (at) =>
        at % 3 === 0 ? 255 : at % CLASSES, ...size(i));
    }
    await writeTexts(folder, { "classes.yaml": "classes: [a, b, c, d, e]" });
    const opened = openSegmentation(setOptions(folder, {}), "train");
    await test((await Effect.runPromise(opened)).samples, folder);
  });

/** `count` batches from step `firstStep` on, and what was logged meanwhile. */
const take = async (
  samples: readonly SegmentationSample[],
  changes: Partial<SegmentationBatchOptions>,
  count: number,
  firstStep = 0,
) => {
  const logged: string[] = [];
  const logger = Logger.make(({ message }) => void logged.push(String(message)));
  const stream = batches(samples, { ...options, ...changes }, firstStep).pipe(Stream.take(count));
  const made = await Effect.runPromise(
    Stream.runCollect(stream).pipe(Effect.provide(Logger.layer([logger]))),
  );
  return { made: made.map(({ times: _, worker: __, ...batch }) => batch), logged };
};

Deno.test(
  "batches() packs crops with their labels, padded on the right and below, and what dropout keeps",
  withSamples(async (samples) => {
    const { made, logged } = await take(samples, {}, 4);
    assert.deepEqual(logged, []);
    assert.deepEqual(made.map(({ step, epoch }) => [step, epoch]), [[0, 0], [1, 0], [2, 1], [3, 1]]);
    let padded = 0;
    for (const { pixels, sizes } of made) {
      for (let b = 0; b < 4; b++) {
        const [height, width] = sizes.subarray(2 * b, 2 * b + 2);
        assert.ok(height >= 1 && height <= SIDE && width >= 1 && width <= SIDE);
        for (let i = 0; i < SIDE * SIDE; i++) {
          const word = pixels[b * SIDE * SIDE + i], label = word >>> 24;
          const inside = i % SIDE < width && Math.floor(i / SIDE) < height;
          if (inside) assert.ok(label < CLASSES || label === 255);
          else assert.equal(word, 255 * 2 ** 24);
          padded += Number(!inside);
        }
      }
    }
    assert.ok(padded > 0);
    const kept = made.flatMap(({ keptHead, keptAuxiliary }) => [...keptHead!, ...keptAuxiliary!]);
    assert.equal(kept.length, 4 * 4 * (64 + 8));
    assert.deepEqual([...new Set(kept)].sort(), [0, Math.fround(4 / 3)]);
    const dropped = kept.filter((factor) => factor === 0).length / kept.length;
    assert.ok(dropped > 0.2 && dropped < 0.3);
    const [plain] = (await take(samples, { dropout: 0 }, 1)).made;
    assert.ok(!("keptHead" in plain) && !("keptAuxiliary" in plain));
    assert.deepEqual(plain.pixels, made[0].pixels);
    const [single] = (await take(samples, { auxiliaryWeight: 0 }, 1)).made;
    assert.ok(single.keptHead?.length === 4 * 64 && single.keptAuxiliary === undefined);
  }),
);

Deno.test(
  "batches() depends neither on workers nor on where it began; ranks have shares of one batch",
  withSamples(async (samples) => {
    const { made: all } = await take(samples, { numWorkers: 1 }, 6);
    assert.deepEqual((await take(samples, { numWorkers: 3 }, 6)).made, all);
    assert.deepEqual((await take(samples, {}, 2, 4)).made, all.slice(4));
    assert.notDeepEqual((await take(samples, { seed: 8 }, 1)).made[0].pixels, all[0].pixels);

    const shares = await Promise.all([0, 1].map((rank) => take(samples, { rank, world: 2 }, 3)));
    const joined = (name: "pixels" | "sizes" | "keptHead" | "keptAuxiliary", step: number) =>
      shares.flatMap(({ made }) => [...made[step][name]!]);
    for (let step = 0; step < 3; step++) {
      for (const name of ["pixels", "sizes", "keptHead", "keptAuxiliary"] as const) {
        assert.deepEqual(joined(name, step), [...all[step][name]!], name);
      }
    }
  }),
);

Deno.test(
  "batches() has every image of an epoch once, and repeats few until they fill a batch",
  withSamples(async (samples) => {
    const { made } = await take(samples, { batchSize: 5 }, 4);
    const epoch = (n: number) => made.filter((batch) => batch.epoch === n).flatMap(({ images }) => images);
    for (const n of [0, 1]) assert.equal(new Set(epoch(n)).size, COUNT);
    assert.notDeepEqual(epoch(0), epoch(1));

    const few = samples.slice(0, 3);
    const { made: repeated } = await take(few, { batchSize: 8 }, 2);
    for (const [n, { images, epoch, pixels }] of repeated.entries()) {
      assert.equal(epoch, n);
      assert.deepEqual(images.slice(3), [...images.slice(0, 3), ...images.slice(0, 2)]);
      assert.equal(new Set(images).size, 3);
      const first = (i: number) => pixels.subarray(i * SIDE * SIDE, (i + 1) * SIDE * SIDE);
      assert.notDeepEqual(first(0), first(3)); // the same image has other draws at another place
    }
  }),
);

Deno.test(
  "batches() names bad pictures and bad labels once, and puts others in their place",
  withSamples(async (samples, folder) => {
    await Deno.writeTextFile(join(folder, "images/train/3.png"), "no picture");
    await writeLabels(join(folder, "labels/train/5.png"), (i) => i === 3 ? 9 : 0, 35, 35);
    await writeLabels(join(folder, "labels/train/6.png"), () => 0, 4, 4);
    const { made, logged } = await take(samples, {}, 8);
    const used = new Set(made.flatMap(({ images }) => images.map((image) => image.replace(/^.*\//, ""))));
    assert.ok(!["3.png", "5.png", "6.png"].some((name) => used.has(name)));
    assert.ok(made.some(({ badImages }) => badImages > 0));
    const words = [
      /train\/3.png": its content is none of/,
      /train\/5.png": its label 9 at column 3, row 0/,
      /4 x 4 pixels/,
    ];
    for (const reason of words) {
      assert.equal(logged.filter((line) => reason.test(line)).length, 1, String(reason));
    }

    const all = batches(samples, { ...options, maxBadImages: 0.2 }).pipe(Stream.take(8), Stream.runCollect);
    const error = await Effect.runPromise(Effect.flip(all));
    assert.match(error.message, /^3 of 10 pictures cannot be decoded, more than --max-bad-images 0.2/);
  }),
);
