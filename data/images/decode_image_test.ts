import assert from "node:assert/strict";
import { Effect, Result } from "effect";
import sharp from "sharp";
import { decodeImage } from "./decode_image.ts";

const decode = (bytes: Uint8Array) => Effect.runPromise(decodeImage(bytes, "the file"));
const reason = async (bytes: Uint8Array) => {
  const result = await Effect.runPromise(Effect.result(decodeImage(bytes, "the file")));
  return Result.isFailure(result) ? result.failure.message : "decoded";
};

const pictures = new URL("../../testdata/augment/pictures/", import.meta.url);
const picture = (file: string) => Deno.readFile(new URL(file, pictures));

/** A 2 x 1 picture in the given colours, for example two RGBA pixels. */
const tiny = (channels: 1 | 3 | 4, ...values: number[]) =>
  sharp(Uint8Array.from(values), { raw: { width: 2, height: 1, channels } });

// Pillow 9.4's reading of the pictures: width, height, the colour of pixel 5000, and the mean colour.
const recorded: Record<string, [number, number, number[], number[]]> = {
  "astronaut_444.jpg": [208, 208, [18, 6, 46], [141.59, 105.83, 96.55]],
  "astronaut_png.JPEG": [97, 96, [47, 6, 0], [141.62, 105.84, 96.6]],
  "camera_gray.jpg": [160, 160, [211, 211, 211], [129.07, 129.07, 129.07]],
  "chelsea_alpha.png": [120, 80, [131, 99, 43], [147.68, 111.45, 86.8]],
  "chelsea_progressive.jpg": [225, 150, [163, 127, 95], [147.64, 111.44, 86.8]],
  "coffee_420.jpg": [251, 167, [193, 138, 97], [158.41, 85.86, 51.71]],
  "coffee_restart.jpg": [150, 100, [191, 128, 84], [158.39, 85.87, 51.88]],
  "hubble_cmyk.jpg": [200, 174, [60, 61, 60], [66.05, 66.22, 66.09]],
  "retina_422.jpg": [181, 180, [196, 80, 57], [159.63, 63.72, 46.39]],
  "rocket_exif6.jpg": [240, 160, [19, 31, 55], [52.22, 61.28, 82.27]],
};

Deno.test("decodeImage() reads JPEG and PNG of every kind as Pillow does", async () => {
  for (const [file, [width, height, colour, mean]] of Object.entries(recorded)) {
    const decoded = await decode(await picture(file));
    assert.deepEqual([decoded.width, decoded.height, decoded.rgb.length], [
      width,
      height,
      3 * width * height,
    ]);
    const sums = [0, 0, 0];
    decoded.rgb.forEach((value, i) => sums[i % 3] += value);
    for (const channel of [0, 1, 2]) {
      const error = Math.abs(decoded.rgb[3 * 5000 + channel] - colour[channel]);
      const meanError = Math.abs(sums[channel] / (width * height) - mean[channel]);
      assert.ok(error <= 2 && meanError <= 0.2, `${file}, channel ${channel}: ${error}, ${meanError}`);
    }
  }
});

Deno.test("decodeImage() drops alpha without blending, repeats greys and keeps colours under any profile", async () => {
  const seeThrough = await tiny(4, 10, 20, 30, 0, 200, 100, 50, 128).png().toBuffer();
  assert.deepEqual([...(await decode(seeThrough)).rgb], [10, 20, 30, 200, 100, 50]);
  const grey = await tiny(1, 7, 250).toColourspace("b-w").png().toBuffer();
  assert.deepEqual([...(await decode(grey)).rgb], [7, 7, 7, 250, 250, 250]);
  const profiled = await tiny(3, 250, 20, 30, 0, 100, 250).withMetadata({ icc: "p3" }).png().toBuffer();
  const written = await sharp(profiled, { ignoreIcc: true }).raw().toBuffer();
  assert.notDeepEqual([...written], [250, 20, 30, 0, 100, 250]);
  assert.deepEqual([...(await decode(profiled)).rgb], [...written]);
});

Deno.test("decodeImage() clips 16-bit greys and keeps the upper byte of 16-bit colours, as Pillow does", async () => {
  const greys = Uint16Array.of(100, 30000);
  const grey16 = await sharp(greys, { raw: { width: 2, height: 1, channels: 1 } })
    .toColourspace("grey16").png().toBuffer();
  assert.deepEqual([...(await decode(grey16)).rgb], [100, 100, 100, 255, 255, 255]);
  const colours = Uint16Array.of(0x1234, 0xff80, 0x00ff, 0x8000, 0x7fff, 0xffff);
  const rgb16 = await sharp(colours, { raw: { width: 2, height: 1, channels: 3 } })
    .toColourspace("rgb16").png().toBuffer();
  assert.deepEqual([...(await decode(rgb16)).rgb], [0x12, 0xff, 0x00, 0x80, 0x7f, 0xff]);
});

Deno.test("decodeImage() names the file and what is wrong with it", async () => {
  const whole = await picture("coffee_420.jpg");
  const progressive = await picture("chelsea_progressive.jpg");
  const png = await picture("chelsea_alpha.png");
  assert.equal(await reason(whole), "decoded");
  for (const file of [whole, progressive, png]) {
    assert.match(
      await reason(file.subarray(0, file.length / 2)),
      /^Cannot decode "the file": it is truncated/,
    );
  }
  assert.match(await reason(whole.subarray(0, -20)), /truncated/);
  assert.match(await reason(new Uint8Array()), /empty \(0 bytes\)/);
  assert.match(await reason(new TextEncoder().encode("a letter to my aunt")), /none of JPEG, PNG/);
  assert.match(
    await reason(new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')),
    /none of JPEG, PNG/,
  );
});

Deno.test("decodeImage() refuses a small file that claims to be a huge picture", async () => {
  const bomb = await picture("coffee_420.jpg");
  const frame = bomb.findIndex((byte, i) => byte === 0xff && bomb[i + 1] === 0xc0); // then length, depth, height, width
  bomb.fill(0xfa, frame + 5, frame + 9);
  assert.match(await reason(bomb), /claims 64250 x 64250 pixels/);
});
