import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { distort, type Distortion } from "./distort.ts";

// Digests of what OpenCV 4.8.1 makes of 2^18 different colours: in rows of 512, which it works on in vectors alone, and
// of 62, of which 30 pixels are left over.
const cases: readonly (readonly [Distortion, value: number, width: number, digest: string])[] = [
  ["brightness", -31.7, 512, "29edaa28580f206f"],
  ["brightness", 20.4, 512, "87e47bb2b4c9f293"],
  ["contrast", 0.55, 512, "e5b0be9df7ba702b"],
  ["contrast", 1.49, 512, "4e98d1b0a54c5811"],
  ["saturation", 0.5, 512, "1eec1dfffdbf4437"],
  ["saturation", 1.37, 512, "bf8e8841517d9cef"],
  ["hue", -18, 512, "ee978d5b498a9fdd"],
  ["hue", 17, 512, "6f54b3ebc727214d"],
  ["brightness", -31.7, 62, "e2a66f78fd7b4e7b"],
  ["contrast", 1.49, 62, "721c099027cdac54"],
  ["saturation", 0.5, 62, "c9aa0285c68f689e"],
  ["saturation", 1.37, 62, "1a1396c285eb7ed3"],
  ["hue", -18, 62, "92997e62bb74f653"],
  ["hue", 17, 62, "1392ccb3de7adfeb"],
];

Deno.test("distort() has the bits of OpenCV, of vectors and of what is left over in a row", () => {
  for (const [distortion, value, width, digest] of cases) {
    const height = Math.floor(2 ** 18 / width);
    const rgb = new Uint8Array(3 * width * height);
    for (let i = 0; i < width * height; i++) {
      const color = i * 257 * 255 % 2 ** 24;
      rgb.set([color & 255, color >> 8 & 255, color >> 16], 3 * i);
    }
    distort({ width, height, rgb }, distortion, value);
    const got = createHash("sha256").update(rgb).digest("hex").slice(0, 16);
    assert.equal(got, digest, `${distortion} ${value}, rows of ${width}`);
  }
});
