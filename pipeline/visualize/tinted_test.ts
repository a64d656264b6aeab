import assert from "node:assert/strict";
import { tinted } from "./tinted.ts";

Deno.test("tinted() gives a segment its colour, keeps the picture's brightness in it, and outlines it", () => {
  const width = 6, height = 2;
  // Dark on the left of each segment, bright on its right; the segments meet in the middle.
  const rgb = Uint8Array.from({ length: width * height * 3 }, (_, i) => 40 + 60 * (Math.floor(i / 3) % 3));
  const segments = Array.from({ length: width * height }, (_, i) => i % width < 3 ? 1 : 0);
  const picture = tinted({ width, height, rgb }, segments, [[0, 0, 255], [255, 0, 0]]);
  const pixel = (x: number) => Array.from(picture.rgb.subarray(3 * x, 3 * x + 3));
  const [dark, bright, edge, beyond] = [0, 1, 2, 3].map(pixel);
  assert.ok(dark[0] > dark[2] && beyond[2] > beyond[0], "red on the left, blue on the right");
  assert.ok(bright[0] > dark[0] && bright[2] > dark[2]);
  assert.ok(edge[0] < dark[0]);
});
