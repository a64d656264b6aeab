import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { inTestFolder } from "../data/_test_kit.ts";
import { readClassFile } from "../data/datasets/segmentation/class_file.ts";
import { readUpright } from "../data/images/decode_image.ts";
import { readPngSamples } from "../data/images/png.ts";
import { CLASSES, SMALL, smallCheckpoint } from "../pipeline/transfer/segmentation/_test_segmentor.ts";
import type { SegmentationConfig } from "../pipeline/transfer/segmentation/config.ts";
import { runSlotcon } from "./_test_kit.ts";

const photographs = join(import.meta.dirname!, "../testdata/augment/pictures");
const CONFIG: SegmentationConfig = { ...SMALL.d16, longSide: 256, shortSide: 64 };

/** The files below a folder, sorted. */
const filesBelow = (folder: string, path = ""): string[] =>
  [...Deno.readDirSync(join(folder, path))].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesBelow(folder, join(path, name)) : [join(path, name)]
  ).sort();

Deno.test(
  "slotcon predict writes a label map and an overlay of each picture's own size, and leaves out what is none",
  inTestFolder(async (folder) => {
    const { file } = await Effect.runPromise(smallCheckpoint(folder, CONFIG));
    const copy = async (name: string, to: string) => {
      await Deno.mkdir(join(folder, to, ".."), { recursive: true });
      await Deno.copyFile(join(photographs, name), join(folder, to));
    };
    await copy("chelsea_alpha.png", "album/a.png");
    await copy("coffee_420.jpg", "album/A.jpg"); // would be called the same
    await copy("rocket_exif6.jpg", "album/deep/turned.jpg"); // on its side
    await copy("camera_gray.jpg", "other/a.jpg");
    await sharp({ create: { width: 1, height: 300, channels: 3, background: "#358" } }).png()
      .toFile(join(folder, "thin.png"));
    await Deno.writeTextFile(join(folder, "album/broken.jpg"), "no picture");
    const predict = (...more: string[]) => runSlotcon(folder, "predict", file, ...more);

    const given = ["album", "other/a.jpg", "thin.png", "album/a.png", "nowhere.jpg"];
    const { code, out, err } = await predict(...given, "--output", "album/out");
    assert.equal(code, 0, err);
    assert.match(
      out,
      /the classes of 5 pictures in labels\/, overlays in overlays\/; 2 left out, by a segmentor of 3 classes/,
    );
    assert.match(err, /album\/broken\.jpg".*It is left out\./);
    assert.match(err, /nowhere\.jpg".*It is left out\./);
    const names = ["A", "a-2", "a-3", "deep/turned", "thin"];
    const files = [
      ...names.flatMap((name) => [`labels/${name}.png`, `overlays/${name}.jpg`]),
      "classes.yaml",
    ].sort();
    assert.deepEqual(filesBelow(join(folder, "album/out")), files);

    const sources = ["album/A.jpg", "album/a.png", "other/a.jpg", "album/deep/turned.jpg", "thin.png"];
    for (const [i, name] of names.entries()) {
      const picture = await Effect.runPromise(readUpright(join(folder, sources[i])));
      const map = readPngSamples(Deno.readFileSync(join(folder, `album/out/labels/${name}.png`)));
      assert.deepEqual([map.indexed, map.width, map.height], [true, picture.width, picture.height]);
      assert.ok(map.samples.every((label) => label < CLASSES.length));
      const overlay = await sharp(join(folder, `album/out/overlays/${name}.jpg`)).metadata();
      assert.deepEqual([overlay.width, overlay.height], [picture.width, picture.height]);
    }
    const { classes } = await Effect.runPromise(readClassFile(join(folder, "album/out/classes.yaml")));
    assert.deepEqual(classes, CLASSES);

    // Again: what is there is replaced, and not taken for pictures.
    const before = Deno.readFileSync(join(folder, "album/out/labels/A.png"));
    assert.equal((await predict(...given, "--output", "album/out")).code, 0);
    assert.deepEqual(filesBelow(join(folder, "album/out")), files);
    assert.deepEqual(Deno.readFileSync(join(folder, "album/out/labels/A.png")), before);
  }),
);

Deno.test(
  "slotcon predict refuses to replace a picture, and says where none can be read or nothing written",
  inTestFolder(async (folder) => {
    const { file } = await Effect.runPromise(smallCheckpoint(folder, CONFIG));
    await Deno.mkdir(join(folder, "labels"));
    await Deno.copyFile(join(photographs, "chelsea_alpha.png"), join(folder, "labels/a.png"));
    await Deno.writeTextFile(join(folder, "file"), "");
    const refused = async (...args: string[]) => {
      const { code, err } = await runSlotcon(folder, "predict", ...args);
      assert.equal(code, 1);
      return err.trim().split("\n").at(-1)!;
    };
    assert.match(
      await refused(file, "labels/a.png", "--output", "."),
      /^slotcon: --output: "labels\/a\.png" is one of the pictures: name another folder$/,
    );
    assert.match(await refused(file, "file", "--output", "out"), /^slotcon: PICTURE: it cannot be read$/);
    assert.match(
      await refused(file, "labels", "--output", "file"),
      /^slotcon: --output: cannot write "file\/classes.yaml": /,
    );
    const encoder = join(import.meta.dirname!, "../testdata/checkpoint/tiny_lars.pth");
    assert.match(await refused(encoder, "labels", "--output", "out"), /it has no segmentor/);
  }),
);
