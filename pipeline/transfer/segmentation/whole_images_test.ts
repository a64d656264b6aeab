import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Stream } from "effect";
import sharp from "sharp";
import { inTestFolder, writeNoise } from "../../../data/_test_kit.ts";
import { setOptions, writeLabels, writeTexts } from "../../../data/datasets/segmentation/_test_sets.ts";
import { openSegmentation } from "../../../data/datasets/segmentation/open_segmentation.ts";
import { readUpright } from "../../../data/images/decode_image.ts";
import { resizeBilinear } from "../../../data/images/resize.ts";
import { packImage } from "./pack.ts";
import { wholeImages } from "./whole_images.ts";

Deno.test(
  "wholeImages() has all images in order, upright and resized, with labels as they are; bad ones keep their places",
  inTestFolder(async (folder) => {
    const size = (i: number) => [30 + i, 20 + i] as const;
    const files = await writeNoise(join(folder, "images/val"), { count: 7, size });
    for (let i = 0; i < 7; i++) {
      const [width, height] = i === 2 ? [size(i)[1], size(i)[0]] : size(i);
      await writeLabels(
        join(folder, `labels/val/${i}.png`),
        (at) => at % 3 === i % 3 ? 255 : 1,
        width,
        height,
      );
    }
    const turned = await sharp(files[2]).withMetadata({ orientation: 6 }).png().toBuffer();
    await Deno.writeFile(files[2], turned);
    await Deno.writeTextFile(files[4], "no picture");
    await writeLabels(join(folder, "labels/val/5.png"), () => 7, ...size(5));
    await writeTexts(folder, { "classes.yaml": "classes: [a, b]" });
    const { samples } = await Effect.runPromise(openSegmentation(setOptions(folder, {}), "val"));

    const options = { longSide: 90, shortSide: 40, numWorkers: 3 };
    const found = await Effect.runPromise(Stream.runCollect(wholeImages(samples, options)));
    assert.deepEqual(found.map(({ index }) => index), [0, 1, 2, 3, 4, 5, 6]);
    assert.deepEqual(found.filter(({ kind }) => kind === "bad file").map(({ index }) => index), [4, 5]);
    for (const image of found) {
      if (image.kind === "bad file") {
        assert.match(image.reason, image.index === 4 ? /4.png": its content/ : /val\/5.png": its label 7 at/);
        continue;
      }
      const picture = await Effect.runPromise(readUpright(files[image.index]));
      const [width, height] = size(image.index);
      const [w, h] = image.index === 2 ? [height, width] : [width, height];
      assert.deepEqual(image.original, { width: w, height: h });
      assert.equal(Math.min(image.width, image.height), 40);
      assert.deepEqual(image.pixels, packImage(resizeBilinear(picture, image)));
      const residue = image.index % 3;
      assert.deepEqual(
        image.labels,
        Uint8Array.from({ length: w * h }, (_, at) => at % 3 === residue ? 255 : 1),
      );
    }

    const unlabelled = samples.map(({ image }) => ({ image }));
    const plain = await Effect.runPromise(Stream.runCollect(wholeImages(unlabelled, options)));
    assert.deepEqual(plain.filter(({ kind }) => kind === "bad file").map(({ index }) => index), [4]);
    assert.ok(plain.every((image) => image.kind === "bad file" || image.labels === null));
    assert.deepEqual(await Effect.runPromise(Stream.runCollect(wholeImages([], options))), []);
  }),
);
