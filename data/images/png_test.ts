import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { crc32, deflateSync } from "node:zlib";
import { Buffer } from "node:buffer";
import { pythonTest } from "../_test_python.ts";
import { indexedPng, readPngSamples } from "./png.ts";

interface Kind {
  readonly file: string; // base64
  readonly width: number;
  readonly height: number;
  readonly sha256: string; // of Pillow's RGB
}

const kinds: Readonly<Record<string, Kind>> =
  JSON.parse(Deno.readTextFileSync(new URL("../../testdata/decode/kinds.json", import.meta.url))).pictures;

/** The contents of a chunk. */
const chunkIn = (bytes: Uint8Array, name: string): Uint8Array => {
  const at = new TextDecoder("latin1").decode(bytes).indexOf(name);
  const length = new DataView(bytes.buffer).getUint32(at - 4);
  return bytes.subarray(at + 4, at + 4 + length);
};

Deno.test("readPngSamples() has what Pillow makes of every PNG of up to 8 bits: colours, greys, and places in palettes", () => {
  const small = Object.entries(kinds).filter(([name]) => name.startsWith("png_") && !name.includes("16"));
  assert.ok(small.length >= 30);
  for (const [name, { file, width, height, sha256 }] of small) {
    const bytes = Uint8Array.fromBase64(file);
    const found = readPngSamples(bytes);
    const palette = found.indexed ? chunkIn(bytes, "PLTE") : null;
    const rgb = Uint8Array.from({ length: 3 * width * height }, (_, i) => {
      const at = Math.floor(i / 3) * found.channels;
      if (palette !== null) return palette[3 * found.samples[at] + i % 3];
      return found.samples[found.channels < 3 ? at : at + i % 3];
    });
    assert.deepEqual([found.width, found.height], [width, height], name);
    assert.equal(createHash("sha256").update(rgb).digest("hex"), sha256, name);
  }
});

Deno.test("readPngSamples() refuses what is damaged, cut short, claims too much, or holds more than it claims", () => {
  const chunk = (name: string, data: Uint8Array) => {
    const bytes = new Uint8Array(data.length + 12);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, data.length);
    bytes.set(new TextEncoder().encode(name), 4);
    bytes.set(data, 8);
    view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
    return [...bytes];
  };
  const png = (width: number, height: number, form: number[], data: Uint8Array) => {
    const header = new Uint8Array(13);
    new DataView(header.buffer).setUint32(0, width);
    new DataView(header.buffer).setUint32(4, height);
    header.set(form, 8);
    const signature = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
    return Uint8Array.of(
      ...signature,
      ...chunk("IHDR", header),
      ...chunk("IDAT", data),
      ...chunk("IEND", new Uint8Array(0)),
    );
  };
  const grey = [8, 0, 0, 0, 0];
  const sound = png(3, 2, grey, deflateSync(Uint8Array.of(0, 1, 2, 3, 0, 4, 5, 6)));
  assert.deepEqual([...readPngSamples(sound).samples], [1, 2, 3, 4, 5, 6]);
  assert.throws(() => readPngSamples(sound.subarray(0, -20)), /truncated or damaged/);
  assert.throws(() => readPngSamples(Uint8Array.of(1, 2, 3)), /no PNG/);
  assert.throws(() => readPngSamples(sound.with(20, 9)), /checksum of its chunk "IHDR"/);
  assert.throws(
    () => readPngSamples(png(2 ** 20, 2 ** 20, grey, new Uint8Array(0))),
    /claims 1048576 x 1048576/,
  );
  assert.throws(() => readPngSamples(png(3, 3, grey, deflateSync(new Uint8Array(8)))), /too few samples/);
  assert.throws(
    () => readPngSamples(png(3, 2, grey, deflateSync(new Uint8Array(10_000_000)))),
    /more samples than/,
  );
  assert.throws(() => readPngSamples(png(3, 2, grey, Uint8Array.of(1, 2, 3))), /truncated or damaged/);
  assert.throws(() => readPngSamples(png(3, 2, grey, deflateSync(new Uint8Array(8).fill(9)))), /filter 9/);
  assert.throws(() => readPngSamples(png(3, 2, [16, 2, 0, 0, 0], new Uint8Array(0))), /16 bits a channel/);
  const wide = (value: number) =>
    png(2, 1, [16, 0, 0, 0, 0], deflateSync(Uint8Array.of(1, 0, 3, value, 251)));
  assert.deepEqual([...readPngSamples(wide(0)).samples], [3, 254]);
  assert.throws(() => readPngSamples(wide(1)), /16 bits a channel and the value 510/);
  assert.throws(
    () => readPngSamples(png(3, 2, [3, 0, 0, 0, 0], new Uint8Array(0))),
    /3 bits of colour type 0/,
  );
});

const MAP = { width: 5, height: 3, samples: Uint8Array.from({ length: 15 }, (_, i) => (i * 7) % 4) };
const PALETTE = [[0, 0, 0], [255, 0, 7], [1, 2, 3], [9, 128, 200]] as const;

Deno.test("indexedPng() writes what readPngSamples() reads: places in the palette", () => {
  const found = readPngSamples(Buffer.concat(indexedPng(MAP, PALETTE)));
  assert.deepEqual(found, { ...MAP, channels: 1, indexed: true });
});

pythonTest(
  "indexedPng() writes what Pillow reads: indices, and the colours of the palette",
  "PIL",
  async (python) => {
    const file = Buffer.concat(indexedPng(MAP, PALETTE)).toString("base64");
    const script = `
import base64, io, json, sys
from PIL import Image
image = Image.open(io.BytesIO(base64.b64decode(sys.argv[1])))
print(json.dumps([image.mode, list(image.size), list(image.getdata()), list(image.convert("RGB").getdata())]))`;
    assert.deepEqual(await python(script, file), [
      ...["P", [5, 3], [...MAP.samples]],
      Array.from(MAP.samples, (place) => PALETTE[place]),
    ]);
  },
);
