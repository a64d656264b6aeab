import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Effect } from "effect";
import { inTestFolder, secondsComputed, writeImage } from "../../data/_test_kit.ts";
import { pythonTest } from "../../data/_test_python.ts";
import { readPicture } from "../../data/images/decode_image.ts";
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

Deno.test("framed() keeps the middle of a picture whose shorter side has been resized", () => {
  for (const [width, height] of [[96, 64], [64, 96]]) {
    const { width: w, height: h, rgb } = framed(ramp(width, height), { resize: 32, crop: 24 });
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

Deno.test("framed() leaves a picture that has the size already as it is", () => {
  const picture = ramp(8, 8);
  assert.deepEqual(framed(picture, { resize: 8, crop: 8 }), picture);
});

Deno.test("framed() takes the middle of strips of any length, in bounded time and memory", () => {
  const LONG = 20_000_000;
  for (const [width, height] of [[LONG, 1], [1, LONG]]) {
    const rgb = new Uint8Array(3 * LONG).fill(50);
    rgb.fill(200, 3 * (LONG / 2 - 100), 3 * (LONG / 2 + 100));
    const begin = secondsComputed();
    const middle = framed({ width, height, rgb }, { resize: 73, crop: 64 });
    assert.ok(middle.rgb.every((value) => value === 200) && secondsComputed() - begin < 5);
  }
});

const pictures = ["astronaut_png.JPEG", "chelsea_progressive.jpg", "coffee_420.jpg", "hubble_cmyk.jpg"]
  .map((name) => new URL(`../../testdata/augment/pictures/${name}`, import.meta.url).pathname);

pythonTest("framed() equals Pillow's resizing and torchvision's crop bit for bit", "PIL", async (python) => {
  const script = `
import hashlib, json, sys
from PIL import Image
side, crop, *files = sys.argv[1:]
side, crop = int(side), int(crop)
def framed(file):
    picture = Image.open(file)
    size = tuple(side if length == min(picture.size) else int(side * length / min(picture.size)) for length in picture.size)
    picture = picture.resize(size, Image.BILINEAR)
    left, top = (int(round((length - crop) / 2)) for length in size)
    return picture.crop((left, top, left + crop, top + crop))
print(json.dumps([hashlib.sha256(framed(file).tobytes()).hexdigest() for file in files]))`;
  // Their pixels as PNG files, for Pillow's own decoder of JPEG is another.
  const decoded = await Promise.all(pictures.map((file) => Effect.runPromise(readPicture(file))));
  await inTestFolder(async (folder) => {
    const files = decoded.map((_, i) => `${folder}/${i}.png`);
    await Promise.all(decoded.map((picture, i) => writeImage(files[i], picture)));
    for (const [resize, crop] of [[256, 224], [73, 64], [40, 40]]) {
      const theirs = await python(script, String(resize), String(crop), ...files);
      const ours = decoded.map((picture) =>
        createHash("sha256").update(framed(picture, { resize, crop }).rgb).digest("hex")
      );
      assert.deepEqual(ours, theirs, `${resize}, ${crop}`);
    }
  })();
});
