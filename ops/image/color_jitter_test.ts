import assert from "node:assert/strict";
import type { Picture } from "../../data/images/decode_image.ts";
import type { ViewDraw } from "../../pipeline/pretrain/draws.ts";
import { gpuTest } from "../_test_kit.ts";
import { asPictures, assertEqualsRecorded, asTable, evaluatePictures } from "./_test_stages.ts";
import { colorJitter } from "./color_jitter.ts";

for (const stage of ["brightness", "contrast", "saturation", "hue", "gray"] as const) {
  gpuTest(`colorJitter() equals Pillow's ${stage} bit for bit`, function* () {
    yield* assertEqualsRecorded(stage, colorJitter);
  });
}

const jittered = (...jitter: ViewDraw["jitter"]): ViewDraw => ({
  box: [0, 0, 1, 1],
  flip: false,
  jitter,
  gray: false,
  blur: null,
  solarize: false,
});

gpuTest("colorJitter() turns every mixture of two colours exactly as f32 arithmetic does", function* () {
  const size = 445; // holds all ratios of the three values, in all six orders
  const rgb = new Uint8Array(3 * size * size);
  let pixel = 0;
  for (let high = 1; high < 256; high++) {
    for (let middle = 0; middle <= high; middle++) {
      for (const order of [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]]) {
        rgb.set(order.map((place) => [high, middle, 0][place]), 3 * pixel++);
      }
    }
  }
  const picture: Picture = { width: size, height: size, rgb };
  for (const shift of [1, 201]) {
    const views = asTable([jittered(["hue", (shift + 0.5) / 255])]);
    const got = yield* evaluatePictures(colorJitter(asPictures([picture]), views));
    let different = 0;
    for (let i = 0; i < 3 * pixel; i += 3) {
      const want = turned(rgb[i], rgb[i + 1], rgb[i + 2], shift);
      if (want.some((value, c) => value !== got[i + c])) different++;
    }
    assert.equal(different, 0);
  }
});

/** RGB to HSV and back in the f32 arithmetic that Pillow uses, which follows Python's colorsys. */
const turned = (r: number, g: number, b: number, shift: number): number[] => {
  const f = Math.fround;
  const value = Math.max(r, g, b), chroma = value - Math.min(r, g, b);
  const [rc, gc, bc] = [r, g, b].map((c) => f((value - c) / chroma));
  const sixths = r === value ? f(bc - gc) : g === value ? f(2 + rc - bc) : f(4 + gc - rc);
  const hue = (Math.trunc(f((sixths / 6 + 1) % 1) * 255) + shift) & 255;
  const saturation = f(Math.trunc(f(chroma / value) * 255) / 255);
  const sector = Math.floor(hue * 6 / 255), rest = f(hue * 6 / 255 - sector);
  const low = Math.round(value * (1 - saturation));
  const falling = Math.round(value * (1 - f(saturation * rest)));
  const rising = Math.round(value * (1 - saturation * (1 - rest)));
  return [
    [value, rising, low],
    [falling, value, low],
    [low, value, rising],
    [low, falling, value],
    [rising, low, value],
    [value, low, falling],
  ][sector % 6];
};

gpuTest(
  "colorJitter() rounds products to f32 before it adds, and takes the mean luma at its turn",
  function* () {
    const gray = [0, 0, 0, 40].flatMap((value) => [value, value, value]);
    const picture: Picture = { width: 2, height: 2, rgb: Uint8Array.from(gray) };
    const views = asTable([jittered(["brightness", 0.5], ["contrast", 0.8])]);
    const got = yield* evaluatePictures(colorJitter(asPictures([picture]), views));
    // Halved, the mean is 5. f32(0.8) · 5 lies above 4, its product in f32 does not: 5 − 4 is 1 and not just below.
    assert.deepEqual([0, 3, 6, 9].map((i) => got[i]), [1, 1, 1, 17]);
  },
);
