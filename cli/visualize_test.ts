import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { inflateRawSync } from "node:zlib";
import { Effect } from "effect";
import { inTestFolder, writeImage } from "../data/_test_kit.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { readSafetensors, writeSafetensors } from "../data/formats/safetensors.ts";
import { readPicture } from "../data/images/decode_image.ts";
import { runTrimmed } from "./_test_kit.ts";
import { permissionFlags } from "./launch/permissions.ts";

const testdata = new URL("../testdata/", import.meta.url).pathname;

const slotcon = (folder: string, ...args: string[]) => runTrimmed(folder, "visualize", ...args);

/** The teacher of the recording, of 16 prototypes, as a file of weights. */
const writeTeacher = async (folder: string) => {
  const { tensors } = await Effect.runPromise(
    readSafetensors(await Deno.readFile(`${testdata}knn/knn.safetensors`), "knn.safetensors"),
  );
  const own = [...tensors].filter(([name]) => name.startsWith("model/"));
  const pieces = writeSafetensors(
    new Map(own.map(([name, tensor]) => [name.slice("model/".length), tensor])),
  );
  await Deno.writeFile(`${folder}/teacher.safetensors`, Buffer.concat(pieces));
};

interface Page {
  readonly prototypes: readonly {
    number: number;
    wonIn: number;
    share: number;
    nearest: [number, number][];
  }[];
  readonly pictures: readonly { name: string; width: number; height: number; map: string }[];
}

const pageIn = async (file: string): Promise<Page> => {
  const html = await Deno.readTextFile(file);
  return JSON.parse(html.match(/<script type="application\/json" id="data">(.*?)<\/script>/s)![1]);
};

/** How many pixels each prototype wins in a picture of a page. */
const winsIn = ({ width, height, map }: Page["pictures"][number]) => {
  const bytes = inflateRawSync(Uint8Array.fromBase64(map)).slice();
  const slots = new Uint16Array(bytes.buffer, 0, bytes.length / 2);
  assert.equal(slots.length, width * height);
  return Map.groupBy(slots, (slot) => slot);
};

const HOSTILE = "<img src=x onerror=alert(1)>.jpg";

Deno.test(
  "slotcon visualize draws prototypes with their nearest pictures, names bad files and escapes names",
  inTestFolder(async (folder) => {
    await writeTeacher(folder);
    await Effect.runPromise(makeScenes({ dir: `${folder}/data`, seed: 0, train: 0, val: 7, size: 96 }));
    const pictures = `${folder}/data/val2017`;
    await Deno.rename(`${pictures}/000000000003.jpg`, `${pictures}/${HOSTILE}`);
    await Deno.writeFile(
      `${pictures}/cut.jpg`,
      (await Deno.readFile(`${pictures}/000000000001.jpg`)).slice(0, 900),
    );

    const args = ["teacher.safetensors", "--data-dir", "data", "--topk", "3", "--idxs", "9,2"];
    const refused = await slotcon(folder, ...args, "--batch-size", "3", "--save-path", "shown.png");
    assert.equal(refused.code, 1);
    assert.match(
      refused.err,
      /\nslotcon: 1 of 8 pictures cannot be decoded, more than --max-bad-images 0\.01 /,
    );
    const { code, out, err } = await slotcon(
      folder,
      ...[...args, "--batch-size", "3", "--max-bad-images", "0.2", "--save-path", "shown.png"],
    );
    assert.equal(code, 0, err);
    assert.match(err, /^slotcon: Cannot decode "data\/val2017\/cut\.jpg": [^\n]*\. It is left out\.$/);
    assert.match(
      out,
      /^shown\.png: .*, 2 prototypes, each with its 3 nearest pictures\nshown\.html: .*7 pictures, 1 left/,
    );

    const sheet = await Effect.runPromise(readPicture(`${folder}/shown.png`));
    assert.ok(sheet.width > 3 * 200 && sheet.height > 2 * 200, `${sheet.width} × ${sheet.height}`);
    const html = await Deno.readTextFile(`${folder}/shown.html`);
    assert.ok(!html.includes("<img"));
    const { prototypes, pictures: onPage } = await pageIn(`${folder}/shown.html`);
    assert.deepEqual(prototypes.map(({ number }) => number), Array.from({ length: 16 }, (_, k) => k));
    assert.ok(onPage.some(({ name }) => name === `val2017/${HOSTILE}`));
    assert.ok(Math.abs(prototypes.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-9);
    for (const { wonIn, nearest } of prototypes) {
      assert.ok(wonIn <= 7 && nearest.length === 3);
      assert.deepEqual(nearest, nearest.toSorted(([, a], [, b]) => b - a));
      assert.equal(new Set(nearest.map(([picture]) => picture)).size, 3);
    }
    // What is won most of all has its region in its nearest pictures.
    const most = prototypes.reduce((a, b) => b.share > a.share ? b : a);
    const best = winsIn(onPage[most.nearest[0][0]]).get(most.number);
    assert.ok(best !== undefined && best.length > 100);
    assert.deepEqual(
      Array.from(Deno.readDirSync(folder), ({ name }) => name).sort(),
      ["data", "shown.html", "shown.png", "teacher.safetensors"],
    );
  }),
);

Deno.test(
  "slotcon visualize --images shows any pictures at their own aspect, with a published checkpoint too",
  inTestFolder(async (folder) => {
    const [wide, high] = ["coffee_420.jpg", "astronaut_png.JPEG"].map((name) =>
      `${testdata}augment/pictures/${name}`
    );
    const { code, err } = await slotcon(
      folder,
      ...[`${testdata}checkpoint/tiny_lars.pth`, "--images", wide, high, "--save-path", "slots.html"],
    );
    assert.equal(code, 0, err);
    const { pictures, prototypes } = await pageIn(`${folder}/slots.html`);
    assert.deepEqual(pictures.map(({ name, width, height }) => [name, width, height]), [
      ["coffee_420.jpg", 640, Math.round(640 * 167 / 251)],
      ["astronaut_png.JPEG", 640, Math.round(640 * 96 / 97)],
    ]);
    const shown = new Set(pictures.flatMap((picture) => [...winsIn(picture).keys()]));
    assert.deepEqual(new Set(prototypes.map(({ number }) => number)), shown);
    assert.deepEqual(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["slots.html"]);
  }),
);

Deno.test(
  "slotcon visualize --images shows strips of any proportions beside other pictures, on a sheet of bounded size",
  inTestFolder(async (folder) => {
    const strip = (width: number, height: number) => ({
      width,
      height,
      rgb: new Uint8Array(60_000).fill(90),
    });
    await writeImage(`${folder}/wide.png`, strip(20_000, 1));
    await writeImage(`${folder}/high.png`, strip(1, 20_000));
    await Deno.writeTextFile(`${folder}/text.jpg`, "no picture");
    const { code, out, err } = await slotcon(
      folder,
      ...[`${testdata}checkpoint/tiny_lars.pth`, "--images", "wide.png", "text.jpg", "high.png"],
      ...[`${testdata}augment/pictures/coffee_420.jpg`, "--save-path", "strips.png"],
    );
    assert.equal(code, 0, err);
    assert.match(err, /^slotcon: Cannot decode "text\.jpg": [^\n]*\. It is left out\.$/);
    assert.match(out, /3 pictures beside their slots\n.* 3 pictures, 1 left out;/);
    const sheet = await Effect.runPromise(readPicture(`${folder}/strips.png`));
    assert.ok(sheet.width <= 3000 && sheet.height <= 1100, `${sheet.width} × ${sheet.height}`);
    const { pictures } = await pageIn(`${folder}/strips.html`);
    assert.deepEqual(pictures.map(({ width, height }) => [width, height]), [[640, 1], [1, 640], [640, 426]]);
  }),
);

Deno.test(
  "slotcon visualize says in one sentence what is wrong, before it begins",
  inTestFolder(async (folder) => {
    await writeTeacher(folder);
    await Deno.copyFile(`${testdata}augment/pictures/coffee_420.jpg`, `${folder}/coffee.jpg`);
    const cases: [string[], RegExp][] = [
      [["--idxs", "3,16"], /^slotcon: --idxs: .*there are 16 prototypes, 0 to 15.*, found "16"$/],
      [["--sampling", "17"], /^slotcon: --sampling: expected 0 to 16, found 17$/],
      [["--sampling", "2", "--idxs", "3"], /^slotcon: --sampling: --idxs names the prototypes already$/],
      [["--topk", "0"], /^slotcon: --topk: expected 1 to 100, found 0$/],
      [["--save-path", "a.gif"], /^slotcon: --save-path: .* ends in \.jpg, \.png or \.html, found "a\.gif"$/],
      [["--save-path", "none/a.jpg"], /^slotcon: --save-path: there is no folder ".*\/none"$/],
      [
        ["--images", "coffee.jpg", "--save-path", "coffee.jpg"],
        /^slotcon: --save-path: "coffee\.jpg" is one of/,
      ],
      [
        ["--images", "coffee.jpg", ""],
        /^slotcon: the argument behind "coffee\.jpg": expected a value, found nothing$/,
      ],
      [["--data-dir="], /^slotcon: --data-dir: expected a value, found nothing$/],
      [["coffee.jpg"], /^slotcon: --images: "coffee\.jpg" stands behind the checkpoint/],
      [[], /^slotcon: There is no "datasets\/coco"/],
    ];
    for (const [args, expected] of cases) {
      const { code, out, err } = await slotcon(folder, "teacher.safetensors", ...args);
      assert.deepEqual([code, out], [1, ""], args.join(" "));
      assert.match(err, expected);
    }
    assert.deepEqual(
      Array.from(Deno.readDirSync(folder), ({ name }) => name).sort(),
      ["coffee.jpg", "teacher.safetensors"],
    );
  }),
);

Deno.test("permissionFlags() lets visualize read what it shows, and write its sheet and page alone", async () => {
  const allowed = async (kind: string, ...args: string[]) => {
    const flag = (await permissionFlags(["visualize", ...args])).find((flag) =>
      flag.startsWith(`--allow-${kind}=`)
    )!;
    return flag.slice(flag.indexOf("=") + 1).split(",").filter((path) => path.startsWith("/x"));
  };
  const images = ["/x/c.pth", "--topk", "3", "--images", "/x/1.jpg", "/x/2.jpg", "--save-path", "/x/o/p.png"];
  const written = ["/x/o/p.png", "/x/o/p.png.partial", "/x/o/p.html", "/x/o/p.html.partial"];
  assert.deepEqual(await allowed("write", ...images), written);
  assert.deepEqual(await allowed("read", ...images), [
    ...["/x/c.pth", "/x/1.jpg", "/x/2.jpg", "/x/o", ...written],
  ]);
  assert.deepEqual((await allowed("read", "/x/c.pth", "--data-dir=/x/coco")).slice(0, 2), [
    "/x/c.pth",
    "/x/coco",
  ]);
});
