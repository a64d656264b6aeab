import assert from "node:assert/strict";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import { Effect } from "effect";
import { encode as encodePng } from "fast-png";
import { inTestFolder } from "../_test_kit.ts";
import { type LabelKind, openLabels } from "./coco_labels.ts";
import { makeScenes } from "./scenes.ts";

const WIDTH = 5, HEIGHT = 4;
// A cat (17) on grass (193) with a crowd of people (1) above; nobody knows the last column.
const CATEGORIES = [
  [1, 1, 1, 1, 0],
  [193, 17, 17, 193, 0],
  [193, 17, 17, 193, 0],
  [193, 193, 193, 193, 0],
].flat();
const categories = [
  { id: 193, name: "grass-merged", supercategory: "plant", isthing: 0 },
  { id: 17, name: "cat", supercategory: "animal", isthing: 1 },
  { id: 1, name: "person", supercategory: "person", isthing: 1 },
];
const image = { id: 9, file_name: "000000000009.jpg", width: WIDTH, height: HEIGHT };

const write = (folder: string, path: string, content: string | Uint8Array) => {
  const file = join(folder, path);
  Deno.mkdirSync(join(file, ".."), { recursive: true });
  if (typeof content === "string") Deno.writeTextFileSync(file, content);
  else Deno.writeFileSync(file, content);
};
const grey = (values: readonly number[]) =>
  encodePng({ width: WIDTH, height: HEIGHT, data: Uint8Array.from(values), channels: 1 });

/** An indexed PNG of `depth` bits, as COCO's pixel maps are, with a palette that has every colour twice. */
const indexed = (values: readonly number[], depth: 4 | 8): Uint8Array => {
  const rows = Array.from({ length: HEIGHT }, (_, y) => {
    const row = values.slice(y * WIDTH, (y + 1) * WIDTH);
    if (depth === 8) return [0, ...row];
    return [
      0,
      ...Array.from({ length: Math.ceil(WIDTH / 2) }, (_, i) => row[2 * i] << 4 | (row[2 * i + 1] ?? 0)),
    ];
  });
  const chunk = (type: string, data: Uint8Array) => {
    const bytes = new Uint8Array(data.length + 12);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, data.length);
    bytes.set(new TextEncoder().encode(type), 4);
    bytes.set(data, 8);
    view.setUint32(data.length + 8, crc32(bytes.subarray(4, data.length + 8)));
    return bytes;
  };
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, WIDTH);
  new DataView(header.buffer).setUint32(4, HEIGHT);
  header.set([depth, 3], 8);
  const palette = Uint8Array.from({ length: 3 * 2 ** depth }, (_, i) => Math.floor(i / 6));
  return Uint8Array.from([
    ...[137, 80, 78, 71, 13, 10, 26, 10],
    ...chunk("IHDR", header),
    ...chunk("PLTE", palette),
    ...chunk("IDAT", deflateSync(Uint8Array.from(rows.flat()))),
    ...chunk("IEND", new Uint8Array(0)),
  ]);
};

const crc32 = (bytes: Uint8Array): number => {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc >>> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
};

const open = (dataDir: string, kind: LabelKind | null, coarse = false) =>
  openLabels({ dataDir, split: "val", kind, coarse, objects: true });
const read = (dataDir: string, kind: LabelKind | null, coarse = false) =>
  Effect.runPromise(Effect.gen(function* () {
    const { classes, pictures, kind: found } = yield* open(dataDir, kind, coarse);
    const { labels, objects, width, height } = yield* pictures[0].read;
    assert.deepEqual([width, height, pictures[0].file], [
      WIDTH,
      HEIGHT,
      join(dataDir, "val2017", image.file_name),
    ]);
    return {
      found,
      names: [...labels].map((label) => label === 0 ? "" : classes[label - 1]),
      objects: objects === null ? null : [...objects],
    };
  }));
const nameOf = (id: number) => categories.find((category) => category.id === id)?.name ?? "";
const NAMES = CATEGORIES.map(nameOf);
const CAT = CATEGORIES.map((id) => Number(id === 17));

Deno.test(
  "openLabels() finds the same classes and objects in every kind of COCO's annotations",
  inTestFolder(async (folder) => {
    // Segments 70000, 300 and 5: all three bytes of a pixel count.
    const segments = new Map([[1, 70000], [17, 300], [193, 5], [0, 0]]);
    const rgb = CATEGORIES.flatMap((id) => [0, 8, 16].map((shift) => segments.get(id)! >> shift & 255));
    const panoptic = {
      images: [image],
      categories,
      annotations: [{
        image_id: 9,
        file_name: "000000000009.png",
        segments_info: [
          { id: 70000, category_id: 1, iscrowd: 1 },
          { id: 300, category_id: 17, iscrowd: 0 },
          { id: 5, category_id: 193, iscrowd: 0 },
        ],
      }],
    };
    write(folder, "annotations/panoptic_val2017.json", JSON.stringify(panoptic));
    write(
      folder,
      "annotations/panoptic_val2017/000000000009.png",
      encodePng({ width: WIDTH, height: HEIGHT, data: Uint8Array.from(rgb), channels: 3 }),
    );
    const whole = { names: NAMES, objects: CAT };
    assert.deepEqual(await read(folder, null), { found: "panoptic", ...whole });
    assert.deepEqual(
      (await read(folder, null, true)).names,
      NAMES.map((name) => {
        const category = categories.find((category) => category.name === name);
        return category?.supercategory ?? "";
      }),
    );

    // The cat as a polygon over half of the crowd's row, which the crowd must not hide; the crowd as run lengths.
    const instances = {
      images: [image],
      categories: categories.slice(1),
      annotations: [
        { image_id: 9, category_id: 17, iscrowd: 0, segmentation: [[1, 1, 3, 1, 3, 3, 1, 3]] },
        {
          image_id: 9,
          category_id: 1,
          iscrowd: 1,
          segmentation: { size: [4, 5], counts: [0, 1, 3, 2, 2, 2, 2, 1, 7] },
        },
      ],
    };
    write(folder, "annotations/instances_val2017.json", JSON.stringify(instances));
    const things = CATEGORIES.map((id) => id === 193 ? "" : nameOf(id));
    assert.deepEqual(await read(folder, "instances"), { found: "instances", names: things, objects: CAT });

    // 255 is unknown here, and all others are one less than their category.
    write(
      folder,
      "stuffthingmaps/val2017/000000000009.png",
      grey(CATEGORIES.map((id) => id === 0 ? 255 : id - 1)),
    );
    assert.deepEqual(await read(folder, "stuffthing"), { found: "stuffthing", ...whole });
    write(folder, "annotations/stuff_val2017_pixelmaps/000000000009.png", indexed(CATEGORIES, 8));
    assert.deepEqual(await read(folder, "pixelmaps"), { found: "pixelmaps", ...whole });
    const small = CATEGORIES.map((id) => Number(id === 1));
    write(folder, "annotations/stuff_val2017_pixelmaps/000000000009.png", indexed(small, 4));
    assert.deepEqual((await read(folder, "pixelmaps")).names, small.map((one) => one === 1 ? "person" : ""));
  }),
);

Deno.test(
  "openLabels() says what it looked for, and names what does not fit in an annotation",
  inTestFolder(async (folder) => {
    const refusal = async (kind: LabelKind | null = null) =>
      (await read(folder, kind).then(() => assert.fail("nothing was refused"), (error) => error)).message;
    assert.match(
      await refusal(),
      /it has none, looked for .*panoptic_val2017\.json.*instances_val2017\.json/,
    );
    const instances = (segmentation: unknown) =>
      write(
        folder,
        "annotations/instances_val2017.json",
        JSON.stringify({
          images: [image],
          categories,
          annotations: [{ image_id: 9, category_id: 17, segmentation }],
        }),
      );
    instances({ size: [4, 5], counts: [0, 3] });
    assert.match(await refusal(), /run lengths of "000000000009.jpg" do not cover 5 x 4 pixels/);
    instances("none");
    assert.match(await refusal(), /instances_val2017\.json": .*segmentation/);
    write(folder, "annotations/instances_val2017.json", "{");
    assert.match(await refusal(), /instances_val2017\.json": .*JSON/);
    Deno.removeSync(join(folder, "annotations/instances_val2017.json"));
    write(folder, "annotations/stuff_val2017_pixelmaps/000000000009.png", "no PNG");
    assert.match(await refusal(), /000000000009\.png": /);
  }),
);

Deno.test(
  "openLabels() reads drawn scenes: every pixel has a class, and objects are those of their classes",
  inTestFolder(async (folder) => {
    const dataDir = join(folder, "scenes");
    await Effect.runPromise(makeScenes({ dir: dataDir, seed: 3, train: 1, val: 4, size: 64 }));
    const { classes, pictures } = await Effect.runPromise(open(dataDir, null));
    assert.equal(pictures.length, 4);
    for (const { read } of pictures) {
      const { labels, objects } = await Effect.runPromise(read);
      labels.forEach((label, i) => {
        const isObject = ["disc", "square", "star", "ring"].includes(classes[label - 1]);
        assert.equal(objects![i] > 0, isObject, `pixel ${i} is ${classes[label - 1]}`);
      });
    }
  }),
);
