import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { resizeBilinear, resizeNearest } from "./resize.ts";

const noise = (length: number) =>
  Uint8Array.from({ length }, (_, i) => (i * i * 7 + Math.floor(i / 8) * 13) % 251);
const digest = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex").slice(0, 16);

type Case = readonly [
  from: readonly [number, number],
  to: readonly [number, number],
  bilinear: string,
  nearest: string,
];

// Digests of what OpenCV 4.8.1 makes of the noise, by cv2.resize with INTER_LINEAR and INTER_NEAREST.
const cases: readonly Case[] = [
  [[53, 37], [300, 210], "5b79ded4ddc99298", "c8cf37ba0046552a"],
  [[300, 200], [90, 60], "869cbb6a2a8d66ae", "5f0586a94a8de66f"],
  [[121, 81], [60, 40], "c1cb821d6e277471", "2028f0a51c974e93"],
  [[120, 80], [60, 40], "63609ddfecb4ca69", "987490fffe134e70"], // exactly half
  [[120, 80], [60, 80], "4b71afe5d2205392", "2ecce994e83c2ce8"],
  [[1, 9], [40, 5], "c2a6e33c12dfc162", "35f4d6fbaabce515"],
  [[9, 1], [5, 40], "91800824b1908fe6", "ebf97bd841fd2e0a"],
  [[64, 48], [64, 48], "a8ad7ce3d794a16e", "620e5c3fb4b60b27"],
  [[7, 5], [3, 11], "027236758a4f1ccf", "d901adf922d98cd7"],
];

Deno.test("resizeBilinear() and resizeNearest() have the bits of OpenCV, larger, smaller and of one pixel", () => {
  for (const [[width, height], to, bilinear, nearest] of cases) {
    const size = { width: to[0], height: to[1] };
    const image = { width, height, rgb: noise(3 * width * height) };
    assert.equal(digest(resizeBilinear(image, size).rgb), bilinear, `${width} x ${height} to ${to}`);
    assert.equal(digest(resizeNearest(noise(width * height), image, size)), nearest, `${width} x ${height}`);
  }
});

Deno.test("resizeBilinear() and resizeNearest() make any box of the result as they make it of the whole", () => {
  for (const [[width, height], [W, H]] of cases) {
    const image = { width, height, rgb: noise(3 * width * height) }, labels = noise(width * height);
    const to = { width: W, height: H };
    const whole = resizeBilinear(image, to).rgb, wholeLabels = resizeNearest(labels, image, to);
    for (const share of [0, 0.4, 0.9]) {
      const [top, left] = [Math.floor(share * H), Math.floor((1 - share) * (W - 1))];
      const [h, w] = [Math.ceil((H - top) / 2), W - left];
      const box = [top, left, h, w] as const;
      const rows = <A extends Uint8Array>(all: A, channels: number) =>
        Array.from({ length: h }, (_, y) => {
          const at = channels * ((top + y) * W + left);
          return [...all.subarray(at, at + channels * w)];
        }).flat();
      assert.deepEqual([...resizeBilinear(image, to, box).rgb], rows(whole, 3));
      assert.deepEqual([...resizeNearest(labels, image, to, box)], rows(wholeLabels, 1));
    }
  }
});
