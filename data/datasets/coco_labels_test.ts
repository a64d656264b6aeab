import assert from "node:assert/strict";
import { join } from "node:path";
import { deflateSync } from "node:zlib";
import { Effect } from "effect";
import sharp from "sharp";
import { inTestFolder, shell } from "../_test_kit.ts";
import { readPngSamples } from "../images/png.ts";
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
const png = (values: readonly number[], channels: 1 | 3) =>
  sharp(Uint8Array.from(values), { raw: { width: WIDTH, height: HEIGHT, channels } })
    .toColourspace(channels === 1 ? "b-w" : "srgb").png().toBuffer();

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
    const { labels, objects, width, height } = yield* pictures[0].read({ width: WIDTH, height: HEIGHT });
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
      await png(rgb, 3),
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
      await png(CATEGORIES.map((id) => id === 0 ? 255 : id - 1), 1),
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
      const { labels, objects } = await Effect.runPromise(read({ width: 64, height: 64 }));
      labels.forEach((label, i) => {
        const isObject = ["disc", "square", "star", "ring"].includes(classes[label - 1]);
        assert.equal(objects![i] > 0, isObject, `pixel ${i} is ${classes[label - 1]}`);
      });
    }
  }),
);

/** Two pictures of 6 x 4 pixels, each of two halves, which is what is wrong or odd in an annotation file laid over. */
const halves = (
  folder: string,
  change: (file: {
    images: Record<string, unknown>[];
    categories: Record<string, unknown>[];
    annotations: Record<string, unknown>[];
  }) => unknown,
) => {
  const half = (left: number) => [[left, 0, left + 3, 0, left + 3, 4, left, 4]];
  const file = {
    images: [1, 2].map((id): Record<string, unknown> => ({
      id,
      file_name: `00000${id}.jpg`,
      width: 6,
      height: 4,
    })),
    categories: [{ id: 3, name: "left" }, { id: 7, name: "right" }] as Record<string, unknown>[],
    annotations: [1, 2].flatMap((picture): Record<string, unknown>[] => [
      { id: 2 * picture - 1, image_id: picture, category_id: 3, iscrowd: 0, segmentation: half(0) },
      { id: 2 * picture, image_id: picture, category_id: 7, iscrowd: 0, segmentation: half(3) },
    ]),
  };
  const changed = change(file) ?? file;
  const text = typeof changed === "string" ? changed : JSON.stringify(changed);
  write(folder, "annotations/instances_val2017.json", text);
};

/** What is read of the pictures of `halves`: names of the classes of the first row, whether there are two objects, warnings. */
const readHalves = (folder: string, size = { width: 6, height: 4 }, kind: LabelKind = "instances") =>
  Effect.runPromise(Effect.gen(function* () {
    const { classes, pictures, warnings } = yield* open(folder, kind);
    const maps = yield* Effect.forEach(pictures, ({ read }) => read(size));
    return {
      rows: maps.map(({ labels }) =>
        [...labels.subarray(0, 6)].map((label) => classes[label - 1]?.[0] ?? "-").join("")
      ),
      objects: maps.map(({ objects }) => new Set(objects ?? []).size),
      warnings,
    };
  }));
const WHOLE = { rows: ["lllrrr", "lllrrr"], objects: [2, 2], warnings: [] };

Deno.test(
  "openLabels() reads what COCO's own tools read: ids from 0 and of text, truth values, NaN, masks that others left",
  inTestFolder(async (folder) => {
    halves(folder, () => {});
    assert.deepEqual(await readHalves(folder), WHOLE);
    halves(folder, ({ categories, annotations }) => {
      for (const category of categories) category.id = category.id === 3 ? 0 : 1;
      for (const each of annotations) each.category_id = each.category_id === 3 ? 0 : 1;
    });
    assert.deepEqual(await readHalves(folder), WHOLE);
    halves(folder, ({ images, categories, annotations }) => {
      for (const picture of images) picture.id = `picture ${picture.id}`;
      for (const category of categories) category.id = `category ${category.id}`;
      for (const each of annotations) {
        [each.image_id, each.category_id] = [`picture ${each.image_id}`, `category ${each.category_id}`];
      }
    });
    assert.deepEqual(await readHalves(folder), WHOLE);
    for (const iscrowd of [false, null, undefined]) {
      halves(folder, ({ annotations }) => annotations.forEach((each) => each.iscrowd = iscrowd));
      assert.deepEqual(await readHalves(folder), WHOLE);
    }
    halves(folder, ({ annotations }) => void (annotations[0].iscrowd = true));
    assert.deepEqual(await readHalves(folder), { ...WHOLE, objects: [2, 2] });
    halves(folder, (file) => JSON.stringify(file).replace('"iscrowd":0', '"area":NaN'));
    assert.deepEqual(await readHalves(folder), WHOLE);
    halves(folder, ({ annotations }) => void (annotations[0].segmentation = [[0, 0, 3, 0, 3, 4, -30000, 4]]));
    assert.deepEqual(await readHalves(folder), WHOLE);
    halves(
      folder,
      ({ annotations }) => void (annotations[0].segmentation = [{ size: [4, 6], counts: [0, 12, 12] }]),
    );
    assert.deepEqual(await readHalves(folder), WHOLE);
  }),
);

Deno.test(
  "openLabels() leaves out boxes alone and annotations of unknown pictures, and says how many",
  inTestFolder(async (folder) => {
    const path = join(folder, "annotations/instances_val2017.json");
    for (const segmentation of [undefined, null, []]) {
      halves(folder, ({ annotations }) => void (annotations[2].segmentation = segmentation));
      assert.deepEqual(await readHalves(folder), {
        rows: ["lllrrr", "---rrr"],
        objects: [2, 2],
        warnings: [
          `1 of 4 annotations in "${path}" have no mask and are left out, the first is annotation 3 of "000002.jpg"`,
        ],
      });
    }
    halves(folder, ({ annotations }) => void (annotations[3].image_id = 9));
    const { rows, warnings } = await readHalves(folder);
    assert.deepEqual(rows, ["lllrrr", "lll---"]);
    assert.match(
      warnings[0],
      /1 of 4 annotations .* are of none of its pictures .* annotation 4 of picture 9/,
    );
  }),
);

Deno.test(
  "openLabels() refuses annotations that contradict themselves or their pictures, by number and name",
  inTestFolder(async (folder) => {
    type Change = Parameters<typeof halves>[1];
    const refusals: readonly (readonly [change: Change, words: RegExp])[] = [
      [
        ({ annotations }) => void annotations.forEach((each) => each.image_id = 9),
        /none of its 4 annotations is of one of/,
      ],
      [
        ({ annotations }) => void annotations.forEach((each) => each.image_id = "1"),
        /picture "1", the first picture is 1/,
      ],
      [({ annotations }) => void annotations.splice(0), /its list "annotations" is empty/],
      [({ images }) => void images.splice(0), /its list "images" is empty/],
      [({ categories }) => void categories.splice(0), /its list "categories" is empty/],
      [({ images, categories }) => ({ images, categories }), /it has no list "annotations"/],
      [({ annotations }) => annotations, /no JSON object/],
      [
        ({ annotations }) => void annotations.forEach((each) => delete each.segmentation),
        /none of its 4 annotations has a mask/,
      ],
      [
        ({ annotations }) => void (annotations[2].category_id = 4),
        /annotation 3 of "000002.jpg" is of category 4, which is none/,
      ],
      [
        ({ annotations }) => void (annotations[2].iscrowd = "0"),
        /iscrowd of annotation 3 of "000002.jpg" is "0", expected 0 or 1/,
      ],
      [
        ({ annotations }) => void (annotations[2].segmentation = [[0, 0, 1e308, 0, 1, 1]]),
        /annotation 3 of "000002.jpg": .* 1e\+308/,
      ],
      [
        ({ annotations }) => void (annotations[2].segmentation = { size: [2, 3], counts: [6] }),
        /annotation 3 .* of 3 x 2/,
      ],
      [
        ({ annotations }) => void Object.assign(annotations[2], { id: undefined, category_id: 4 }),
        /annotation at place 3/,
      ],
      [({ categories }) => void (categories[1].id = 3), /two categories have the id 3, "left" and "right"/],
      [({ categories }) => void (categories[1].name = 5), /category 7 has the name 5/],
      [({ images }) => void (images[1].id = 1), /two pictures have the id 1, the second is "000002.jpg"/],
      [({ images }) => void (images[1].file_name = "../../secret.jpg"), /outside of the folder of pictures/],
      [({ images }) => void (images[1].file_name = "/etc/secret.jpg"), /outside of the folder of pictures/],
      [({ images }) => void (images[1].width = -5), /"000002.jpg" is said to have -5 x 4 pixels/],
      [
        ({ images }) => void (images[1].width = 1e9),
        /its labels of "000002.jpg" are for 1000000000 x 4 pixels, the picture has 6 x 4/,
      ],
      [
        ({ images }) => void Object.assign(images[1], { width: 4, height: 6 }),
        /4 x 6 pixels, the picture has 6 x 4: .* perhaps by EXIF's orientation/,
      ],
      [
        ({ images }) => void Object.assign(images[1], { width: 3, height: 2 }),
        /3 x 2 pixels, the picture has 6 x 4: both must be of/,
      ],
    ];
    for (const [change, words] of refusals) {
      halves(folder, change);
      const message = await readHalves(folder).then(() => "nothing was refused", ({ message }) => message);
      assert.match(message, words);
    }
  }),
);

Deno.test(
  "openLabels() reads interlaced maps of 4 bits, refuses maps of another size, and passes over hidden files",
  inTestFolder(async (folder) => {
    const { pictures: kinds } = JSON.parse(
      Deno.readTextFileSync(new URL("../../testdata/decode/kinds.json", import.meta.url)),
    );
    const interlaced = Uint8Array.fromBase64(kinds["png_palette4_interlaced.png"].file);
    const places = readPngSamples(Uint8Array.fromBase64(kinds["png_palette4.png"].file)).samples;
    write(folder, "stuffthingmaps/val2017/000001.png", interlaced);
    write(folder, "stuffthingmaps/val2017/._000001.png", "what macOS leaves");
    const { classes, pictures } = await Effect.runPromise(open(folder, "stuffthing"));
    assert.equal(pictures.length, 1);
    const { labels } = await Effect.runPromise(pictures[0].read({ width: 13, height: 9 }));
    assert.deepEqual(
      [...labels].map((label) => classes[label - 1]),
      [...places].map((place) => `class ${place + 1}`),
    );
    const refused = await Effect.runPromise(Effect.flip(pictures[0].read({ width: 26, height: 18 })));
    assert.match(
      refused.message,
      /000001.png": its labels of "000001.jpg" are for 13 x 9 pixels, the picture has 26 x 18/,
    );
  }),
);

Deno.test(
  "openLabels() names pipes and devices among annotations and maps, and waits for none",
  inTestFolder(async (folder) => {
    const refusal = (kind: LabelKind, size = { width: 6, height: 4 }) =>
      readHalves(folder, size, kind).then(() => "nothing was refused", ({ message }) => message);
    const pipe = async (path: string) => {
      Deno.mkdirSync(join(folder, path, ".."), { recursive: true });
      await shell('mkfifo "$0"', [join(folder, path)]).output();
    };
    await pipe("annotations/instances_val2017.json");
    assert.match(await refusal("instances"), /instances_val2017.json": it is a named pipe, not a file/);
    Deno.symlinkSync("/dev/zero", join(folder, "annotations/stuff_val2017.json"));
    assert.match(await refusal("stuff"), /stuff_val2017.json": it is a device, not a file/);
    await pipe("annotations/stuff_val2017_pixelmaps/000001.png");
    Deno.removeSync(join(folder, "annotations/instances_val2017.json"));
    Deno.removeSync(join(folder, "annotations/stuff_val2017.json"));
    assert.match(await refusal("pixelmaps"), /000001.png": it is a named pipe, not a file/);
  }),
);
