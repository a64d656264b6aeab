import assert from "node:assert/strict";
import { Effect } from "effect";
import { framed } from "./framed.ts";

/** Red grows by 2 a pixel to the right, green by 2 a pixel downwards. */
const ramp = (width: number, height: number) => {
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    rgb[3 * i] = 2 * (i % width);
    rgb[3 * i + 1] = 2 * Math.floor(i / width);
  }
  return { width, height, rgb };
};

Deno.test("framed() keeps the middle of a picture whose shorter side has been resized", async () => {
  for (const [width, height] of [[96, 64], [64, 96]]) {
    const { width: w, height: h, rgb } = await Effect.runPromise(
      framed(ramp(width, height), { resize: 32, crop: 24 }),
    );
    assert.deepEqual([w, h, rgb.length], [24, 24, 24 * 24 * 3]);
    const left = (width / 2 - 24) / 2, top = (height / 2 - 24) / 2;
    for (const [x, y] of [[0, 0], [5, 17], [23, 23]]) {
      // Pixel x of the half-size picture lies between pixels 2x and 2x + 1.
      const at = 3 * (y * 24 + x);
      assert.ok(Math.abs(rgb[at] - 2 * (2 * (left + x) + 0.5)) <= 1, `red at ${x}, ${y}: ${rgb[at]}`);
      assert.ok(
        Math.abs(rgb[at + 1] - 2 * (2 * (top + y) + 0.5)) <= 1,
        `green at ${x}, ${y}: ${rgb[at + 1]}`,
      );
    }
  }
});

Deno.test("framed() leaves a picture that has the size already as it is", async () => {
  const picture = ramp(8, 8);
  assert.deepEqual(await Effect.runPromise(framed(picture, { resize: 8, crop: 8 })), picture);
});
