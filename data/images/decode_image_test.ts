import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect, Result } from "effect";
import sharp from "sharp";
import { inTestFolder, secondsComputed, shell } from "../_test_kit.ts";
import { pythonTest } from "../_test_python.ts";
import { decodeImage, readPicture } from "./decode_image.ts";

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

Deno.test("decodeImage() turns images upright where that is wanted, by all orientations of EXIF", async () => {
  const [width, height] = [5, 3];
  const rgb = Uint8Array.from({ length: 3 * width * height }, (_, i) => i * 5 % 251);
  for (const format of ["jpeg", "png", "webp"] as const) {
    for (let orientation = 1; orientation <= 8; orientation++) {
      const bytes = await sharp(rgb, { raw: { width, height, channels: 3 } }).withMetadata({ orientation })
        .toFormat(format, { lossless: true }).toBuffer();
      const { data, info } = await sharp(bytes).autoOrient().raw().toBuffer({ resolveWithObject: true });
      const upright = await Effect.runPromise(decodeImage(bytes, "the file", { upright: true }));
      assert.deepEqual([upright.width, upright.height], [info.width, info.height]);
      assert.deepEqual([...upright.rgb], [...data], `${format}, orientation ${orientation}`);
      const stored = await decode(bytes);
      assert.deepEqual([stored.width, stored.height], [width, height]);
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

interface Kinds {
  readonly pillow: string;
  readonly pictures: Readonly<Record<string, Kind>>;
}

interface Kind {
  readonly file: string; // base64
  readonly width: number;
  readonly height: number;
  readonly sha256: string | null; // of the RGB bytes; null where Pillow does not read it
}

const recordings = new URL("../../testdata/decode/", import.meta.url);
const recordedKinds: Kinds = JSON.parse(Deno.readTextFileSync(new URL("kinds.json", recordings)));

const expectPillows = async ({ pictures }: Kinds) => {
  for (const [name, { file, width, height, sha256 }] of Object.entries(pictures)) {
    const decoded = await Effect.runPromise(decodeImage(Uint8Array.fromBase64(file), name));
    const digest = createHash("sha256").update(decoded.rgb).digest("hex");
    assert.deepEqual([decoded.width, decoded.height, digest], [width, height, sha256], name);
  }
};

Deno.test("decodeImage() equals Pillow to the bit for 187 kinds of pictures, as recorded", async () => {
  assert.equal(Object.keys(recordedKinds.pictures).length, 187);
  await expectPillows(recordedKinds);
});

pythonTest("decodeImage() equals the Pillow that is installed to the bit", "PIL", async (python) => {
  const kinds = await python(await Deno.readTextFile(new URL("kinds.py", recordings))) as Kinds;
  const [major, minor] = kinds.pillow.split(".").map(Number);
  if (major > 9 || major === 9 && minor >= 4) await expectPillows(kinds);
});

/** A file of `kinds.json`, changed. */
const changed = (name: string, change: (bytes: Uint8Array) => Uint8Array | void): Uint8Array => {
  const bytes = Uint8Array.fromBase64(recordedKinds.pictures[name].file);
  return change(bytes) ?? bytes;
};

/** Sets the value of a tag in the directory of a little-endian TIFF, a SHORT or a LONG. */
const setTag = (bytes: Uint8Array, tag: number, value: number): void => {
  const view = new DataView(bytes.buffer);
  const at = view.getUint32(4, true);
  for (let i = 0; i < view.getUint16(at, true); i++) {
    const entry = at + 2 + 12 * i;
    if (view.getUint16(entry, true) === tag) return view.setUint32(entry + 8, value, true);
  }
  assert.fail(`no tag ${tag}`);
};

Deno.test("decodeImage() refuses TIFF that it would read as something else: damaged tiles, methods and kinds of its own", async () => {
  const { file } = recordedKinds.pictures["tiff_tile.tif"];
  const whole = Uint8Array.fromBase64(file);
  // A tile that cannot be read stays black in libvips: 0 is no method of Deflate.
  assert.match(
    await reason(changed("tiff_tile.tif", (bytes) => void bytes.fill(0, 12, 40))),
    /truncated or damaged/,
  );
  assert.equal(await reason(whole), "decoded");
  const refusals: readonly (readonly [tag: number, value: number, words: RegExp])[] = [
    [259, 34925, /compressed by TIFF's method 34925/], // LZMA
    [259, 50000, /method 50000/], // Zstandard
    [262, 8, /a kind that is not read: 3 x 8\/8\/8 bits, photometric 8/], // CIELAB
    [262, 6, /photometric 6/], // YCbCr that is not JPEG
    [256, 2 ** 31, /claims 2147483648 x 9 pixels/],
    [322, 0, /claims 0 x 16 pixels/], // a tile's width
  ];
  for (const [tag, value, words] of refusals) {
    assert.match(await reason(changed("tiff_tile.tif", (bytes) => setTag(bytes, tag, value))), words);
  }
  const strips = "tiff_rgb8_little.tif";
  assert.match(await reason(changed(strips, (bytes) => bytes.subarray(0, 200))), /truncated or damaged/);
  assert.match(await reason(changed(strips, (bytes) => void bytes.fill(255, 4, 8))), /truncated or damaged/);
});

Deno.test("decodeImage() turns AVIF only where images are wanted upright, as by orientations of JPEG", async () => {
  const { width, height } = await decode(Uint8Array.fromBase64(TURNED_AVIF));
  assert.deepEqual([width, height], [37, 29]);
  const upright = await Effect.runPromise(
    decodeImage(Uint8Array.fromBase64(TURNED_AVIF), "the file", { upright: true }),
  );
  assert.deepEqual([upright.width, upright.height, upright.rgb.length], [29, 37, 3 * 29 * 37]);
});

Deno.test("decodeImage() takes no longer for a WebP of a hundred thousand frames than for its first", async () => {
  const animation = changed("webp_animated.webp", (bytes) => {
    const frame = bytes.subarray(findText(bytes, "ANMF"));
    const frames = Array.from({ length: 100_000 }, () => frame);
    const whole = new Uint8Array(bytes.length + frame.length * frames.length);
    whole.set(bytes);
    frames.forEach((each, i) => whole.set(each, bytes.length + i * each.length));
    new DataView(whole.buffer).setUint32(4, whole.length - 8, true);
    return whole;
  });
  const begin = secondsComputed();
  assert.equal((await decode(animation)).width, 13);
  assert.match(await reason(animation.subarray(0, -1)), /truncated/);
  assert.ok(secondsComputed() - begin < 5);
});

const findText = (bytes: Uint8Array, text: string) => new TextDecoder("latin1").decode(bytes).indexOf(text);

Deno.test("decodeImage() refuses small files that hold or claim far more than they have", async () => {
  const gif = (screen: number, frame: number) => {
    const bytes = Uint8Array.from([
      ...new TextEncoder().encode("GIF89a"),
      ...[0, 0, 0, 0, 0, 0, 0, 0x2c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0x44, 1, 0, 0x3b],
    ]);
    new DataView(bytes.buffer).setUint16(6, screen, true);
    new DataView(bytes.buffer).setUint16(8, screen, true);
    new DataView(bytes.buffer).setUint16(18, frame, true);
    new DataView(bytes.buffer).setUint16(20, frame, true);
    return bytes;
  };
  assert.equal(await reason(gif(1, 1)), "decoded");
  assert.match(await reason(gif(65535, 1)), /claims 65535 x 65535 pixels/);
  assert.match(await reason(gif(1, 65535)), /claims 65535 x 65535 pixels/);
  assert.match(await reason(gif(100, 100)), /truncated or damaged/);
  const png = changed("png_rgb8.png", (bytes) => new DataView(bytes.buffer).setUint32(16, 2 ** 31 - 1));
  assert.match(await reason(png), /claims 2147483647 x 9 pixels/);
  assert.match(
    await reason(changed("png_rgb8.png", (bytes) => bytes.subarray(0, 20))),
    /truncated or damaged/,
  );
});

Deno.test("decodeImage() hands no other format to a decoder, under whatever name or beginning", async () => {
  const texts = [
    '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>',
    "%PDF-1.4\n",
    "P3\n1 1\n255\n1 2 3\n",
    "#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 1\n1234",
    "\0\0\0\x14ftypheic\0\0\0\0mif1",
  ];
  for (const text of texts) assert.match(await reason(new TextEncoder().encode(text)), /none of JPEG, PNG/);
  const drawing = texts[0].repeat(1000);
  for (const beginning of ["GIF89a", "RIFF<svgWEBP", "\x89PNG\r\n\x1a\n", "II*\0"]) {
    const bytes = Uint8Array.from(beginning + drawing, (character) => character.charCodeAt(0));
    assert.match(await reason(bytes), /truncated or damaged|claims|no frame/, beginning);
  }
});

Deno.test(
  "readPicture() names pipes, devices, endless links, folders and other files without opening them",
  inTestFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    const refusal = (name: string) =>
      Effect.runPromise(Effect.flip(readPicture(path(name)))).then(({ message }) => message);
    await shell('mkfifo "$0"', [path("pipe.jpg")]).output();
    Deno.symlinkSync("/dev/zero", path("zero.jpg"));
    Deno.symlinkSync("loop.jpg", path("loop.jpg"));
    Deno.mkdirSync(path("folder.jpg"));
    Deno.writeTextFileSync(path("large.jpg"), " ".repeat(300_000));
    Deno.writeTextFileSync(path("empty.jpg"), "");
    assert.match(await refusal("pipe.jpg"), /pipe\.jpg": it is a named pipe, not a file/);
    assert.match(await refusal("zero.jpg"), /it is a device, not a file/);
    assert.match(await refusal("loop.jpg"), /cannot be read \(Too many levels of symbolic links/);
    assert.match(await refusal("folder.jpg"), /it is a folder, not a file/);
    assert.match(await refusal("large.jpg"), /none of JPEG, PNG/);
    assert.match(await refusal("empty.jpg"), /the file is empty/);
    assert.match(await refusal("none.jpg"), /cannot be read \(No such file/);
    Deno.truncateSync(path("large.jpg"), 2 ** 31);
    assert.match(await refusal("large.jpg"), /it has 2147483648 bytes, at most 1073741824 are read/);
  }),
);

// 37 x 29 pixels, to be turned by 90 degrees for display.
const TURNED_AVIF =
  "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD1bWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAEdAAABwQAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAAB0aXBycAAAAFRpcGNvAAAAFGlzcGUAAAAAAAAAJQAAAB0AAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAAAlpcm90AwAAABhpcG1hAAAAAAAAAAEAAQUBAoMEhQAAAcltZGF0EgAKCRgVJONEBDQaEDKxAxTHh4ZlAgggnlAAAAjxZTkNWmADhje+lfyCgVrJOdLr25b1i/zBbP4qM98PhZUdr0kOsH8/LQLT1rfuFg+YvUynykmfZsHDUOKXrwGA4+ASIBQoZorCGOkKUlrBS8J1lnBCzkHnnArSbAn6hCn2ACBtEsfpSuz+fk7HPN1GEydL/cyIiejjYeVHzkPiW5HKYu+vDvM93wgc1WgpIwPAO5yRQkAWj7xm7a5ZXiFH5skTQ6Dz6PtfgSzZ9tU+a7UfurrpSSDA6Mw1h/+yRshRAZnYwlpeTuaGqYyQpWU9ojQMIzi3pz+al/w3noQtfzgmhnNLovzKIT3RyU8qc+9usM1ylTCf64yN5PDbED4RECXLE5kY00rZHWteWM7pv7wwHQpa6bmLVWnzXo0BV5CXEO9phCGrQQ8mudBWbmsBO9U4kVwiKV86Ubu3KcPss9rP4tsk6Ss+jq/TDDJfyzSA2XZZA3kHs1EWG/neyase0qF5wz7W5OMqACPMaEQnUmFpgPC79DlVnhRPh+LSuRe3SaMkXI3h4vq1uK7Q1u+jhunZbilqZu3MIoGQ8NqE6S6Y+8A=";
