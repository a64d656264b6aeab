import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { inflateRawSync } from "node:zlib";
import { Effect } from "effect";
import { decodeImage } from "../../data/images/decode_image.ts";
import { randomStream } from "../../data/random/random.ts";
import { page, pagePicture } from "./page.ts";

const noise = (width: number, height: number) => {
  const random = randomStream(1);
  return { width, height, rgb: Uint8Array.from({ length: width * height * 3 }, () => random.integer(256)) };
};

const written = (pieces: readonly Uint8Array[]) => new TextDecoder().decode(Buffer.concat(pieces));

Deno.test("page() holds names as text: none of them can end the data or begin a tag", async () => {
  const names = [
    "<img src=x onerror=alert(1)>.jpg",
    "</script><script>alert(2)</script>",
    "a\u2028b<!--.png",
  ];
  const map = Uint16Array.from({ length: 48 }, (_, i) => i % 3);
  const pictures = await Promise.all(
    names.map((name) => Effect.runPromise(pagePicture(name, noise(8, 6), map, names.length))),
  );
  const html = written(page({
    ...{ title: "</title><b>", facts: "<i>", looked: 3, pictures },
    prototypes: [{
      ...{ number: 2, color: [1, 171, 255], wonIn: 3, share: 0.5 },
      nearest: [{ picture: 1, score: 0.25 }],
    }],
  }));

  // What a browser takes for data: everything up to the first end of a script.
  const [before, after] = html.split('<script type="application/json" id="data">');
  const [json, rest] = [after.slice(0, after.indexOf("</script>")), after.slice(after.indexOf("</script>"))];
  assert.ok(!json.includes("<"));
  const data = JSON.parse(json);
  assert.deepEqual(data.pictures.map(({ name }: { name: string }) => name), names);
  assert.deepEqual([data.title, data.facts], ["</title><b>", "<i>"]);
  assert.deepEqual(data.prototypes, [
    { number: 2, wonIn: 3, share: 0.5, color: "#01abff", nearest: [[1, 0.25]] },
  ]);
  const [first] = data.pictures;
  assert.deepEqual([first.width, first.height], [8, 6]);
  const inflated = inflateRawSync(Uint8Array.fromBase64(first.map));
  assert.deepEqual(new Uint16Array(inflated.buffer, inflated.byteOffset, 48), map);

  // Its policy lets a browser run the page's own script, and nothing else.
  const script = rest.slice(rest.indexOf("<script>") + "<script>".length, rest.lastIndexOf("</script>"));
  const hash = createHash("sha256").update(script).digest("base64");
  assert.ok(before.includes(`script-src 'sha256-${hash}';`));
  assert.match(before, /content="default-src 'none'; /);
});

Deno.test("pagePicture() shrinks and compresses as much as a page of so many pictures needs", async () => {
  const segments = noise(224, 224).rgb.subarray(0, 224 * 224).map((value) => value % 2); // no map deflates well
  for (const count of [256 * 5, 2048 * 5]) {
    const picture = await Effect.runPromise(pagePicture("name.jpg", noise(224, 224), segments, count));
    assert.ok(picture.length * count < 30e6, `${count} of ${picture.length} bytes`);
    const { jpeg, width, height } = JSON.parse(new TextDecoder().decode(picture));
    const decoded = await Effect.runPromise(decodeImage(Uint8Array.fromBase64(jpeg), "jpeg"));
    assert.deepEqual([decoded.width, decoded.height], [width, height]);
  }
});
