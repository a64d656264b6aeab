import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { inTestFolder } from "../data/_test_kit.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { runSlotcon } from "./_test_kit.ts";

const recorded = join(import.meta.dirname!, "..", "testdata", "checkpoint", "tiny_lars.pth");

const evaluate = (folder: string, args: readonly string[]) => runSlotcon(folder, "evaluate", ...args);

/** What an evaluation wrote. The page needs nothing else: it names no address, and every picture lies in it. */
const written = (folder: string, file: string) => {
  const page = Deno.readTextFileSync(join(folder, `${file}.html`));
  assert.doesNotMatch(page, /https?:|<script|<link/);
  const pictures = [...page.matchAll(/<img src="([^"]{0,40})/g)].map(([, source]) => source);
  assert.ok(pictures.length > 0 && pictures.every((source) => source.startsWith("data:image/jpeg;base64,")));
  return { page, numbers: JSON.parse(Deno.readTextFileSync(join(folder, `${file}.json`))) };
};

Deno.test(
  "slotcon evaluate scores slots and a linear segmentation on drawn scenes, beside what they are compared with",
  inTestFolder(async (folder) => {
    const data = join(folder, "data");
    await Effect.runPromise(makeScenes({ dir: data, seed: 1, train: 12, val: 6, size: 64 }));
    Deno.copyFileSync(recorded, join(folder, "tiny.pth"));

    const slots = await evaluate(folder, ["grouping", "tiny.pth", "--data-dir", data, "--image-size", "64"]);
    assert.equal(slots.code, 0, slots.err);
    const grouping = written(folder, "evaluations/tiny.grouping").numbers;
    assert.deepEqual(grouping.results.map(({ slots }: { slots: number }) => slots), [5, 5, 5, 7]);
    for (const { method, matched, foregroundAri } of grouping.results) {
      assert.ok(slots.out.includes(method), slots.out);
      assert.ok(matched > 0 && matched < 1 && foregroundAri < 1);
    }
    assert.ok(grouping.classes.some(({ name }: { name: string }) => name === "sand"));

    const layer = await evaluate(folder, [
      ...["segmentation-probe", "tiny.pth", "--data-dir", "data", "--epochs", "2"],
      ...["--image-size", "64", "--output", "probe.json"],
    ]);
    assert.equal(layer.code, 0, layer.err);
    const { results, classes } = written(folder, "probe").numbers;
    assert.deepEqual(results.map(({ method }: { method: string }) => method), [
      ...["this encoder", "the same untrained", "colour and place"],
    ]);
    assert.equal(classes[0].iou.length, 3);
    assert.match(layer.out, /trained on 12 pictures, scored on 6 others/);

    Deno.writeTextFileSync(join(data, "val2017", "000000000002.jpg"), "no picture");
    Deno.writeTextFileSync(join(data, "train2017", "000000000001.jpg"), "no picture");
    const bad = ["tiny.pth", "--data-dir", "data", "--image-size", "64", "--output", "bad.json"];
    const refused = await evaluate(folder, ["grouping", ...bad]);
    assert.equal(refused.code, 1);
    assert.match(
      refused.err,
      /\nslotcon: 1 of 6 pictures cannot be decoded, more than --max-bad-images 0\.01 /,
    );
    for (const command of [["grouping"], ["segmentation-probe", "--epochs", "2"]]) {
      const { code, out, err } = await evaluate(folder, [...command, ...bad, "--max-bad-images", "0.2"]);
      assert.equal(code, 0, err);
      assert.match(
        err,
        /^slotcon: Cannot decode ".*2\.jpg": its content is none of [^\n]*\. It is left out\.$/m,
      );
      assert.match(
        out,
        /5 pictures with .*; 1 cannot be decoded and is left out|trained on 11 .* 5 others .*; 2 cannot/,
      );
      const { numbers } = written(folder, "bad");
      assert.equal(numbers.pictures ?? numbers.val, 5);
      assert.equal(numbers.leftOut.length, command[0] === "grouping" ? 1 : 2);
    }

    const nothing = await evaluate(folder, ["grouping", "tiny.pth", "--data-dir", "evaluations"]);
    assert.equal(nothing.code, 1);
    assert.match(nothing.err, /it has none, looked for .*panoptic_val2017\.json/);
  }),
);

Deno.test(
  "slotcon evaluate classifies folders of pictures, by neighbours and by a layer, whatever the classes are called",
  inTestFolder(async (folder) => {
    // Two classes that colours tell apart, one with a name that would be markup.
    const classes = { "<i>&'red": [200, 40, 40], blue: [40, 40, 200] };
    for (const [name, color] of Object.entries(classes)) {
      for (const [split, count] of [["train", 5], ["val", 3]] as const) {
        const path = join(folder, "data", split, name);
        Deno.mkdirSync(path, { recursive: true });
        for (let i = 0; i < count; i++) {
          const background = { r: color[0] + i, g: color[1], b: color[2] - i };
          await sharp({ create: { width: 40 + i, height: 48, channels: 3, background } }).jpeg()
            .toFile(join(path, `${i}.JPEG`));
        }
      }
    }
    Deno.copyFileSync(recorded, join(folder, "tiny.pth"));
    for (const file of ["train/blue/a.jpg", "val/blue/a.jpg"]) { // before all others
      Deno.writeTextFileSync(join(folder, "data", file), "no picture");
    }
    for (const [command, extra] of [["knn", ["--k", "3,5"]], ["linear", ["--epochs", "5"]]] as const) {
      const { code, out, err } = await evaluate(folder, [
        ...[
          command,
          "--data-dir",
          "data",
          ...extra,
          "tiny.pth",
          "--image-size",
          "32",
          "--max-bad-images",
          "0.2",
        ],
      ]);
      assert.equal(code, 0, err);
      const { page, numbers } = written(folder, `evaluations/tiny.${command}`);
      const ofColors = numbers.results.filter(({ method }: { method: string }) =>
        method === "colour histograms"
      );
      assert.deepEqual(ofColors.map(({ top1 }: { top1: number }) => top1), command === "knn" ? [1, 1] : [1]);
      assert.match(out, /colour histograms .* 1\.000/);
      assert.ok(page.includes("&#60;i&#62;&#38;&#39;red") && !page.includes("<i>&"));
      assert.equal(numbers.pictures.length, 6);
      assert.deepEqual([numbers.train, numbers.val, numbers.leftOut.length], [10, 6, 2]);
      assert.match(out, /10 pictures of 2 classes.* 6 others; 2 cannot be decoded and are left out\n/);
    }

    Deno.removeSync(join(folder, "data", "val", "blue"), { recursive: true });
    const missing = await evaluate(folder, ["knn", "tiny.pth", "--data-dir", "data"]);
    assert.equal(missing.code, 1);
    assert.match(missing.err, /train\/ has "blue", which val\/ has not/);
  }),
);
