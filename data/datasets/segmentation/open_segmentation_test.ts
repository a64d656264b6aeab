import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder, writeImage } from "../../_test_kit.ts";
import type { Split } from "../coco_labels.ts";
import { makeScenes } from "../scenes.ts";
import { setOptions, writeLabels, writeNoiseImage, writeTexts } from "./_test_sets.ts";
import { IGNORED, readLabels } from "./label_source.ts";
import { openSegmentation } from "./open_segmentation.ts";
import type { SegmentationSetOptions } from "./segmentation_set.ts";

const open = (dataDir: string, options: Partial<SegmentationSetOptions>, split: Split = "train") =>
  Effect.runPromise(openSegmentation(setOptions(dataDir, options), split));
const refusal = async (dataDir: string, options: Partial<SegmentationSetOptions>, split: Split = "train") =>
  (await Effect.runPromise(Effect.flip(openSegmentation(setOptions(dataDir, options), split)))).message;

type Set = Awaited<ReturnType<typeof open>>;
/** The labels of the sample called `name`, as far as they differ from pixel to pixel. */
const labelsOf = async (set: Set, name: string, width = 12, height = 8) => {
  const { labels, image } = set.samples.find((sample) => sample.name === name)!;
  const read = Effect.flatMap(labels, (source) => readLabels(source, { name: image, width, height }));
  return [...await Effect.runPromise(read)];
};
const names = ({ samples }: Set) => samples.map(({ name }) => name);

Deno.test(
  "openSegmentation() reads VOC: train followed by aug, whose maps lie apart; numbers are classes, 255 is ignored",
  inTestFolder(async (folder) => {
    const root = join(folder, "VOCdevkit/VOC2012");
    for (const id of ["a", "b", "c", "d"]) await writeNoiseImage(join(root, `JPEGImages/${id}.jpg`));
    for (const id of ["a", "c"]) {
      await writeLabels(join(root, `SegmentationClass/${id}.png`), (i) => i % 2 === 0 ? 255 : i % 21);
    }
    await writeLabels(join(root, "SegmentationClassAug/d.png"), () => 20);
    const lists = "ImageSets/Segmentation";
    await writeTexts(root, { [`${lists}/train.txt`]: "c\na\n\n", [`${lists}/val.txt`]: "a\r\nb\r\n" });
    const short = await open(folder, { dataset: "voc" });
    assert.deepEqual(names(short), ["c", "a"]);
    assert.match(short.warnings[0], /aug.txt" is missing/);

    await writeTexts(root, { [`${lists}/aug.txt`]: "d\n" });
    for (const dataDir of [folder, root, join(folder, "VOCdevkit")]) {
      const set = await open(dataDir, { dataset: "voc" });
      assert.deepEqual([names(set), set.warnings], [["c", "a", "d"], []]);
      assert.equal(set.classes.length, 21);
      assert.deepEqual(set.classes[1], { name: "aeroplane", color: [128, 0, 0] });
    }
    const set = await open(folder, { dataset: "voc" });
    assert.deepEqual((await labelsOf(set, "a")).slice(0, 4), [255, 1, 255, 3]);
    assert.deepEqual((await labelsOf(set, "d"))[0], 20);
    const val = await open(folder, { dataset: "voc" }, "val");
    assert.deepEqual(names(val), ["a"]);
    assert.match(val.warnings[0], /1 of 2 pictures have no label map and are left out: .*b.jpg".*b.png"/);
    assert.match(
      await refusal(join(folder, ".."), { dataset: "voc" }),
      /looked for ImageSets\/Segmentation,/,
    );
  }),
);

Deno.test(
  "openSegmentation() reads Cityscapes in the order of paths, from train numbers or from the download's",
  inTestFolder(async (folder) => {
    for (const id of ["ulm/ulm_1", "aachen/aachen_2", "aachen/aachen_1"]) {
      await writeNoiseImage(join(folder, `leftImg8bit/train/${id}_leftImg8bit.png`));
      await writeLabels(join(folder, `gtFine/train/${id}_gtFine_labelIds.png`), (i) => i % 34);
    }
    const set = await open(folder, { dataset: "cityscapes" });
    assert.deepEqual(names(set), ["aachen/aachen_1", "aachen/aachen_2", "ulm/ulm_1"]);
    const translated = await labelsOf(set, "ulm/ulm_1");
    assert.deepEqual([0, 7, 8, 9, 11, 26, 33].map((id) => translated[id]), [255, 0, 1, 255, 2, 13, 18]);

    await writeLabels(join(folder, "gtFine/train/ulm/ulm_1_gtFine_labelTrainIds.png"), () => 18);
    const trainIds = await open(folder, { dataset: "cityscapes" });
    assert.deepEqual(names(trainIds), ["ulm/ulm_1"]);
    assert.match(trainIds.warnings[0], /2 of 3 pictures/);
    assert.equal((await labelsOf(trainIds, "ulm/ulm_1"))[0], 18);
    assert.equal(trainIds.classes[18].name, "bicycle");
  }),
);

Deno.test(
  "openSegmentation() reads ADE20K, whose 0 is ignored and whose 1 is class 0",
  inTestFolder(async (folder) => {
    const root = join(folder, "ADEChallengeData2016");
    await writeNoiseImage(join(root, "images/validation/x.jpg"));
    await writeLabels(join(root, "annotations/validation/x.png"), (i) => [0, 1, 150, 255][i % 4]);
    const set = await open(folder, { dataset: "ade20k" }, "val");
    assert.equal(set.classes.length, 150);
    assert.deepEqual((await labelsOf(set, "x")).slice(0, 4), [255, 0, 149, 255]);
    assert.match(
      await refusal(folder, { dataset: "ade20k" }),
      /images\/training": it cannot be read \(No such file/,
    );
  }),
);

const CLASSES = `
classes:
  - floor
  - { name: wall, color: "#0a141E" }
  - { name: door, color: [1, 2, 3] }
ignored: ["#ffffff"]
`;

Deno.test(
  "openSegmentation() reads one's own maps by folders or lists, of numbers or of colours",
  inTestFolder(async (folder) => {
    await writeTexts(folder, { "classes.yaml": CLASSES });
    for (const split of ["train", "val"]) {
      for (const id of ["b", "sub/a"]) {
        await writeNoiseImage(join(folder, `images/${split}/${id}.${split === "train" ? "png" : "jpg"}`));
        await writeLabels(join(folder, `labels/${split}/${id}.png`), (i) => i % 3);
      }
    }
    const set = await open(folder, {});
    assert.deepEqual(names(set), ["b", "sub/a"]);
    assert.deepEqual(set.classes.map(({ name }) => name), ["floor", "wall", "door"]);
    assert.deepEqual(set.classes.map(({ color }) => color), [[0, 0, 0], [10, 20, 30], [1, 2, 3]]);
    assert.deepEqual((await labelsOf(set, "sub/a")).slice(0, 3), [0, 1, 2]);
    await Deno.symlink(join(folder, "images/val"), join(folder, "images/val/sub/again"));
    assert.deepEqual(names(await open(folder, {}, "val")), ["b", "sub/a"]);

    await writeTexts(folder, { "mine.txt": "val/sub/a.jpg\ntrain/b\n", "other.txt": "train/c.png\n" });
    const listed = await open(folder, { trainList: join(folder, "mine.txt") });
    assert.deepEqual(names(listed), ["val/sub/a", "train/b"]);
    assert.match(
      await refusal(folder, { trainList: join(folder, "other.txt") }),
      /other.txt": it names "train\/c.png"/,
    );
    assert.match(
      await refusal(folder, { valList: join(folder, "none.txt") }, "val"),
      /none.txt.*No such file/,
    );

    const colors = [[10, 20, 30], [1, 2, 3], [255, 255, 255]];
    const rgb = Uint8Array.from({ length: 3 * 96 }, (_, i) => colors[Math.floor(i / 3) % 3][i % 3]);
    await writeImage(join(folder, "labels/train/b.png"), { width: 12, height: 8, rgb });
    assert.deepEqual((await labelsOf(await open(folder, {}), "b")).slice(0, 3), [1, 2, IGNORED]);
    rgb[3 * 17 + 1]++;
    await writeImage(join(folder, "labels/train/b.png"), { width: 12, height: 8, rgb });
    await assert.rejects(
      labelsOf(await open(folder, {}), "b"),
      /train\/b.png": its colour \(255, 0, 255\) at column 5, row 1 is that of none/,
    );
  }),
);

Deno.test(
  "openSegmentation() says in a sentence what is wrong with one's own maps",
  inTestFolder(async (folder) => {
    assert.match(
      await refusal(folder, {}),
      /classes.yaml": it cannot be read .*classes: \[background, road\]/,
    );
    const wrong: readonly (readonly [string, RegExp])[] = [
      ["classes: [a, b\n", /line \d is no YAML/],
      ["classes: {}", /it lists no classes/],
      ["[a, b]", /it lists no classes/],
      ["classes: [a, a]", /two of its classes are called "a"/],
      ["classes: [a, { name: b, colour: red }]", /class 1 has "colour", expected a name and perhaps a color/],
      ["classes: [a, { name: b, color: red }]", /class 1 has the colour "red", expected "#rrggbb"/],
      ["classes: [a, { name: b, color: [0, 0, 256] }]", /class 1 has the colour \[0,0,256\]/],
      [
        `classes: [{ name: a, color: "#000000" }, { name: b, color: [0, 0, 0] }]`,
        /class "b" has the colour of another: #000000/,
      ],
      ["classes: [a]\nignore: 3", /it has "ignore", expected "classes" and perhaps "ignored"/],
      [`classes: [${Array.from({ length: 256 }, (_, i) => `c${i}`)}]`, /256 classes, at most 255/],
    ];
    for (const [text, reason] of wrong) {
      await writeTexts(folder, { "classes.yaml": text });
      assert.match(await refusal(folder, {}), reason);
    }
    await writeTexts(folder, { "classes.yaml": "classes: [floor, wall]" });
    assert.match(
      await refusal(folder, {}),
      /looked for images\/train\/ and labels\/train\/, or train\/images\//,
    );
    await writeNoiseImage(join(folder, "images/a.png"));
    assert.match(await refusal(folder, {}), /pictures that lie in images\/ itself need lists \(--train-list/);
    await Deno.mkdir(join(folder, "images/train"));
    await Deno.mkdir(join(folder, "labels/train"), { recursive: true });
    assert.match(await refusal(folder, {}), /images\/train": it has no pictures/);
    await writeNoiseImage(join(folder, "images/train/a.png"));
    assert.match(
      await refusal(folder, {}),
      /none of its 1 pictures has a label map: .*a.png", has none at .*labels/,
    );

    const label = join(folder, "labels/train/a.png");
    await writeLabels(label, (i) => i === 25 ? 2 : 0);
    await assert.rejects(
      labelsOf(await open(folder, {}), "a"),
      /labels\/train\/a.png": its label 2 at column 1, row 2 is none of its classes: expected 0 to 1, or 255/,
    );
    await writeLabels(label, () => 0, 8, 12);
    await assert.rejects(
      labelsOf(await open(folder, {}), "a"),
      /labels of ".*a.png" are for 8 x 12 pixels, the picture has 12 x 8: one of the two is turned/,
    );
    await writeNoiseImage(label);
    await assert.rejects(labelsOf(await open(folder, {}), "a"), /a.png": it holds colours, expected numbers/);
    await Deno.writeTextFile(label, "no picture");
    await assert.rejects(labelsOf(await open(folder, {}), "a"), /a.png": it is no PNG file/);
    assert.match(
      await refusal(folder, { trainImages: 2 }),
      /2 training pictures are wanted, it has 1 with labels/,
    );
  }),
);

Deno.test(
  "openSegmentation() reads drawn scenes: pixel maps without a background, objects before one",
  inTestFolder(async (folder) => {
    const dir = join(folder, "scenes");
    await Effect.runPromise(makeScenes({ dir, seed: 1, train: 6, val: 1, size: 32 }));
    const set = await open(dir, { dataset: "coco" });
    assert.deepEqual(
      set.classes.map(({ name }) => name),
      ["disc", "square", "star", "ring", "plain", "sand", "field"],
    );
    const all = await labelsOf(set, "000000000001", 32, 32);
    assert.ok(all.every((label) => label < 7) && all.some((label) => label >= 4));

    const objects = await open(dir, { dataset: "coco", labelKind: "instances" });
    assert.deepEqual(objects.classes.map(({ name }) => name), [
      "background",
      "disc",
      "square",
      "star",
      "ring",
    ]);
    const masks = await labelsOf(objects, "000000000001", 32, 32);
    assert.deepEqual(masks, all.map((label) => label < 4 ? label + 1 : 0));

    const drawn = async (seed: number) => names(await open(dir, { dataset: "coco", trainImages: 3, seed }));
    assert.deepEqual(await drawn(1), await drawn(1));
    assert.deepEqual(await drawn(1), (await drawn(1)).toSorted());
    const chosen = await Promise.all([1, 2, 3, 4, 5].map(drawn));
    assert.ok(chosen.every((list) => new Set(list).size === 3) && new Set(chosen.map(String)).size > 1);
    assert.equal((await open(dir, { dataset: "coco", trainImages: 3 }, "val")).samples.length, 1);
    assert.match(
      await refusal(dir, { dataset: "coco", labelKind: "panoptic" }),
      /panoptic_train2017.json \(panoptic\)/,
    );
  }),
);
