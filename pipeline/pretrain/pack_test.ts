import assert from "node:assert/strict";
import type { Picture } from "../../data/images/decode_image.ts";
import { bicubicTaps, type Box, cropResize } from "../../data/images/resample.ts";
import { randomStream } from "../../data/random/random.ts";
import { AUGMENTATION_ROW, augmentationRowWords, JITTER } from "../../ops/image/augmentation_row.ts";
import type { TwoCropDraw, ViewDraw } from "./draws.ts";
import { packBatch } from "./pack.ts";

const picture = (width: number, height: number): Picture => {
  const random = randomStream(width, height);
  return { width, height, rgb: Uint8Array.from({ length: 3 * width * height }, () => random.integer(256)) };
};
const view = (box: Box, changes: Partial<ViewDraw> = {}): ViewDraw => ({
  box,
  flip: false,
  jitter: [],
  gray: false,
  blur: null,
  solarize: false,
  ...changes,
});
const draw = (first: ViewDraw, second: ViewDraw): TwoCropDraw => ({
  views: [first, second],
  coords: [[0, 0.25, 0.5, 1], [0.5, 0, 0.75, 1]],
});
const table = { imageSize: 4, maxTaps: 8 };
const words = augmentationRowWords(table);

Deno.test("packBatch() sends the rows that the views use, and all first views before all second ones", () => {
  const samples = [
    { picture: picture(7, 9), draw: draw(view([2, 1, 5, 3]), view([3, 0, 5, 7], { flip: true })) },
    { picture: picture(5, 5), draw: draw(view([0, 0, 5, 5]), view([1, 1, 4, 4])) },
  ];
  const { pixels, views, coords, flips } = packBatch(samples, { ...table, capacity: 400 });
  const row = (i: number) => views.subarray(i * words, (i + 1) * words);
  const bytes = new Uint8Array(pixels.buffer, 0, pixels.byteLength);
  assert.equal(bytes.length, 204);
  // Rows 2 … 7 of the first picture are 126 bytes, so the second one starts at 128.
  assert.deepEqual([0, 1, 2, 3].map((i) => row(i)[AUGMENTATION_ROW.start]), [3, 128, 21, 128 + 15 + 3]);
  assert.deepEqual([0, 1, 2, 3].map((i) => row(i)[AUGMENTATION_ROW.stride]), [21, 15, 21, 15]);
  assert.deepEqual(bytes.subarray(0, 126), samples[0].picture.rgb.subarray(42, 168));
  assert.deepEqual(bytes.subarray(128, 203), samples[1].picture.rgb);
  assert.deepEqual([...flips], [0, 0, 1, 0]);
  assert.deepEqual([...coords.subarray(4, 12)], [0, 0.25, 0.5, 1, 0.5, 0, 0.75, 1]);
  assert.deepEqual(
    new Int32Array(row(2).slice(AUGMENTATION_ROW.taps).buffer),
    Int32Array.of(...bicubicTaps(7, 4, 8), ...bicubicTaps(5, 4, 8)),
  );
});

Deno.test("packBatch() finishes a picture's views itself where it is too large or too strongly reduced", () => {
  const reduced = { picture: picture(9, 9), draw: draw(view([0, 0, 9, 9]), view([0, 0, 4, 4])) };
  const large = { picture: picture(8, 8), draw: draw(view([0, 0, 8, 8]), view([2, 2, 4, 4])) };
  const fits = { picture: picture(4, 8), draw: draw(view([0, 0, 4, 4]), view([0, 0, 8, 4])) };
  const { pixels, views } = packBatch([reduced, large, fits], { ...table, capacity: 3 * 96 });
  const starts = [0, 1, 2, 3, 4, 5].map((i) => views[i * words + AUGMENTATION_ROW.start]);
  assert.deepEqual(starts, [0, 96, 192, 48, 144, 192]); // one view under the other
  const bytes = new Uint8Array(pixels.buffer);
  const sent = [reduced, large].flatMap(({ picture, draw }) =>
    draw.views.map(({ box }) => [...cropResize(picture, box, 4).rgb])
  );
  assert.deepEqual([...bytes.subarray(0, 192)], sent.flat());
  assert.deepEqual(bytes.subarray(192), fits.picture.rgb);
  assert.throws(() => packBatch([large], { ...table, capacity: 92 }), /96 bytes or more/);
});

Deno.test("packBatch() writes the operations in the numbers that Pillow uses", () => {
  const operations = view([0, 0, 4, 4], {
    jitter: [["hue", -0.1], ["contrast", 0.75]],
    gray: true,
    blur: 2,
    solarize: true,
  });
  const sample = { picture: picture(4, 4), draw: draw(operations, view([0, 0, 4, 4])) };
  const { views } = packBatch([sample], { ...table, capacity: 96 });
  const contrast = [JITTER.contrast, 0x3f400000];
  assert.deepEqual([...views.subarray(AUGMENTATION_ROW.jitter, AUGMENTATION_ROW.jitter + 6)], [
    JITTER.hue,
    231,
    ...contrast,
    0,
    0,
  ]);
  // Standard deviation 2: the box reaches 1 3/8 pixels to each side, a whole pixel weighs 1 / (2 · 1.375 + 1).
  assert.deepEqual([...views.subarray(AUGMENTATION_ROW.gray, AUGMENTATION_ROW.zero + 1)], [
    1,
    1,
    4473924,
    1677722,
    128,
    0,
  ]);
  assert.deepEqual([...views.subarray(words + AUGMENTATION_ROW.gray, words + AUGMENTATION_ROW.zero + 1)], [
    0,
    0,
    2 ** 24,
    0,
    256,
    0,
  ]);
  const twice = { ...operations, jitter: [["contrast", 1], ["contrast", 1]] as ViewDraw["jitter"] };
  assert.throws(() => packBatch([{ ...sample, draw: draw(twice, twice) }], { ...table, capacity: 96 }));
});
