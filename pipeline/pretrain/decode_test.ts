import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Logger, Stream } from "effect";
import sharp from "sharp";
import { inTestFolder, writeNoise } from "../../data/_test_kit.ts";
import { listImages } from "../../data/datasets/image_list.ts";
import { cropResize } from "../../data/images/resample.ts";
import { AUGMENTATION_ROW } from "../../ops/image/augmentation_row.ts";
import { batches, type DecodeConfig } from "./decode.ts";
import type { PackedBatch } from "./pack.ts";

const COUNT = 30;
const config: DecodeConfig = {
  batchSize: 4,
  imageSize: 16,
  minScale: 0.3,
  seed: 7,
  numWorkers: 2,
  maxBadImages: 0.2,
  pixelCapacity: 4 * 40 * 40 * 3,
  maxTaps: 16,
};

/** Thirty small pictures of mixed size and format, of which those named in `bad` are overwritten. */
const withPictures = (
  bad: Record<string, Uint8Array>,
  test: (images: readonly string[]) => Promise<void>,
) =>
  inTestFolder(async (dir) => {
    await writeNoise(dir, {
      count: COUNT,
      name: nameOf, // whose suffix is often wrong
      size: (i) => [20 + i, 50 - i],
      format: (i) => i % 3 === 0 ? "png" : "jpeg",
    });
    for (const [name, bytes] of Object.entries(bad)) await Deno.writeFile(join(dir, name), bytes);
    await test(await Effect.runPromise(listImages({ dataset: "Folder", dataDir: dir })));
  })();
const nameOf = (i: number) => `${String(i).padStart(2, "0")}.jpg`;

/** `count` batches from step `firstStep` on, and what was logged meanwhile. */
const take = async (
  images: readonly string[],
  changes: Partial<DecodeConfig>,
  count: number,
  firstStep = 0,
) => {
  const logged: string[] = [];
  const logger = Logger.make(({ message }) => void logged.push(String(message)));
  const stream = batches(images, { ...config, ...changes }, firstStep).pipe(Stream.take(count));
  const batchesAndTimes = await Effect.runPromise(
    Stream.runCollect(stream).pipe(Effect.provide(Logger.layer([logger]))),
  );
  const made = batchesAndTimes.map(({ times: { begin, decoded, packed }, worker, ...batch }) => {
    const [now, start] = [performance.timeOrigin + performance.now(), performance.timeOrigin];
    assert.ok(start < begin && begin < decoded && decoded < packed && packed < now);
    assert.equal(worker, batch.step % (changes.numWorkers ?? config.numWorkers));
    return batch;
  });
  return { made, logged };
};

const nothing = new Uint8Array();
const text = new TextEncoder().encode("not a picture");
const truncated = async () => {
  const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * i) % 251);
  const whole = await sharp(noise, { raw: { width: 64, height: 64, channels: 3 } }).jpeg().toBuffer();
  return whole.subarray(0, whole.length / 2);
};

Deno.test("batches() holds every picture of an epoch once, in another order in the next", async () => {
  await withPictures({}, async (images) => {
    const { made, logged } = await take(images, {}, 14);
    assert.deepEqual(
      made.map(({ step, epoch }) => [step, epoch]),
      made.map((_, i) => [i, Math.floor(i / 7)]),
    );
    const epochs = [made.slice(0, 7), made.slice(7)].map((part) => part.flatMap(({ images }) => images));
    for (const epoch of epochs) assert.equal(new Set(epoch).size, 28); // thirty are seven batches of four, and two over
    assert.notDeepEqual(epochs[0], epochs[1]);
    assert.deepEqual(logged, []);
  });
});

Deno.test("batches() depends neither on the number of workers nor on where it began", async () => {
  await withPictures({ [nameOf(3)]: nothing, [nameOf(20)]: text }, async (images) => {
    const { made: all } = await take(images, { numWorkers: 1 }, 10);
    const { made: threeWorkers } = await take(images, { numWorkers: 3 }, 10);
    const { made: resumed } = await take(images, {}, 4, 6);
    assert.deepEqual(threeWorkers, all);
    assert.deepEqual(resumed, all.slice(6));
    const { made: otherSeed } = await take(images, { seed: 8 }, 1);
    assert.notDeepEqual(otherSeed[0].images, all[0].images);
  });
});

Deno.test("batches() names a bad file once and puts a good picture in its place", async () => {
  const bad = { [nameOf(0)]: await truncated(), [nameOf(11)]: nothing, [nameOf(12)]: text };
  await withPictures(bad, async (images) => {
    const { made, logged } = await take(images, {}, 4 * 7);
    for (
      const [name, reason] of [[nameOf(0), /truncated/], [nameOf(11), /0 bytes/], [
        nameOf(12),
        /none of JPEG/,
      ]]
    ) {
      const lines = logged.filter((line) => line.includes(name as string));
      assert.equal(lines.length, 1);
      assert.match(lines[0], reason as RegExp);
    }
    const used = made.flatMap(({ images }) => images);
    assert.ok(used.every((path) => !Object.keys(bad).some((name) => path.endsWith(name))));
    assert.equal(used.length, 4 * 28);

    // Over all epochs, each of the three is met unless it is one of the two that an epoch leaves out.
    const replaced = made.reduce((sum, { badImages }) => sum + badImages, 0);
    assert.ok(replaced >= 4 * 1 && replaced <= 4 * 3, `${replaced} replaced`);
  });
});

Deno.test("batches() stops when too many files are bad, and names some", async () => {
  await withPictures({ [nameOf(5)]: nothing, [nameOf(6)]: text }, async (images) => {
    const error = await take(images, { maxBadImages: 0.04 }, 7).then(() => null, (error) => error);
    assert.equal(error._tag, "TooManyBadImagesError");
    assert.match(error.message, /2 of 30 pictures cannot be decoded, more than --max-bad-images 0.04 allows/);
    assert.match(error.message, /05\.jpg/);

    const none = images.map(() => "/nowhere.jpg");
    const all = await take(none, { maxBadImages: 1 }, 1).then(() => null, (error) => error);
    assert.match(all.message, /30 of 30 pictures cannot be decoded/);
    assert.match(all.message, /Cannot decode "\/nowhere.jpg": it cannot be read \(No such file/);
  });
});

Deno.test("batches() gives the same views of pictures that are far too large for the buffer", async () => {
  await withPictures({}, async (images) => {
    const imageSize = 8;
    const { made: [roomy] } = await take(images, { imageSize, pixelCapacity: 20_000 }, 1);
    const { made: [tight] } = await take(images, { imageSize, pixelCapacity: 4 * 2 * 8 * 8 * 3 }, 1);
    assert.ok(tight.pixels.length < roomy.pixels.length / 2);
    for (let view = 0; view < 8; view++) {
      assert.deepEqual(resized(tight, view, imageSize), resized(roomy, view, imageSize));
    }
    const { pixels: _, views: _views, ...rest } = tight;
    assert.deepEqual({ ...roomy, ...rest }, roomy);
  });
});

/** A view after resizing, as the GPU is told to make it. */
const resized = ({ pixels, views }: PackedBatch, view: number, imageSize: number) => {
  const row = views.subarray(view * views.length / 8, (view + 1) * views.length / 8);
  const boxSide = (axis: number) => { // where its last tap ends
    const words = 2 + config.maxTaps; // of an output pixel: its first tap, how many, and their weights
    const taps = row.subarray(AUGMENTATION_ROW.taps + axis * imageSize * words);
    const ends = Array.from({ length: imageSize }, (_, i) => taps[i * words] + taps[i * words + 1]);
    return Math.max(...ends);
  };
  const rgb = new Uint8Array(pixels.buffer).subarray(row[AUGMENTATION_ROW.start]);
  const [width, height] = [boxSide(0), boxSide(1)];
  return cropResize(
    { width: row[AUGMENTATION_ROW.stride] / 3, height, rgb },
    [0, 0, height, width],
    imageSize,
  ).rgb;
};

Deno.test("batches() refuses a batch larger than the data set, and fails when its workers fail", async () => {
  const error = await take(["a.jpg", "b.jpg"], { batchSize: 3 }, 1).then(() => null, (error) => error);
  assert.match(error.message, /--batch-size 3 is more than the 2 pictures/);
  await withPictures({}, async (images) => {
    const error = await take(images, { pixelCapacity: 4 }, 1).then(() => null, (error) => error);
    assert.match(error.message, /A decoding worker stopped: .*4 samples need a capacity/);
  });
});
