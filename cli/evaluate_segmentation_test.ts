import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { inTestFolder } from "../data/_test_kit.ts";
import { makeScenes } from "../data/datasets/scenes.ts";
import { openSegmentation } from "../data/datasets/segmentation/open_segmentation.ts";
import type { SegmentationConfig } from "../pipeline/transfer/segmentation/config.ts";
import { SMALL, smallCheckpoint } from "../pipeline/transfer/segmentation/_test_segmentor.ts";
import { runSlotcon } from "./_test_kit.ts";

const CONFIG: SegmentationConfig = {
  ...SMALL.d8,
  ...{
    dataset: "coco",
    longSide: 128,
    shortSide: 64,
    cropSize: 48,
    windowStride: 32,
    testMode: "windows",
  } as const,
};

Deno.test(
  "slotcon evaluate segmentation counts every labelled pixel, and shows the worst pictures with their classes",
  inTestFolder(async (folder) => {
    const dataDir = join(folder, "data");
    await Effect.runPromise(makeScenes({ dir: dataDir, seed: 1, train: 2, val: 5, size: 64 }));
    const { classes, samples } = await Effect.runPromise(openSegmentation({ ...CONFIG, dataDir }, "val"));
    const { file } = await Effect.runPromise(smallCheckpoint(folder, CONFIG, classes));
    const broken = join(dataDir, "broken.txt"), picture = samples[4].image;
    await Deno.writeTextFile(broken, "no picture");
    await Deno.rename(broken, picture);

    const bad = ["--max-bad-images", "0.2"];
    const ended = await runSlotcon(
      ...[folder, "evaluate", "segmentation", file, "--data-dir", "data"] as const,
      ...bad,
    );
    assert.equal(ended.code, 0, ended.err);
    assert.ok(
      ended.err.includes(picture.slice(folder.length + 1)) && ended.err.includes("It is left out."),
      ended.err,
    );
    assert.match(
      ended.out,
      /scored on 4 pictures of data, 1 left out, .*in windows of 48 pixels, one every 32/,
    );
    assert.match(ended.out, /aAcc +mIoU +mAcc\n *\d+\.\d\d +\d+\.\d\d +\d+\.\d\d/);
    const at = join(dirname(file), "evaluations", `${file.match(/([^/]+)\.safetensors$/)![1]}.segmentation`);
    const numbers = JSON.parse(Deno.readTextFileSync(`${at}.json`));
    const rows: number[][] = numbers.confusion;
    const total = rows.flat().reduce((sum, count) => sum + count, 0);
    assert.equal(total, 4 * 64 * 64);
    assert.equal(numbers.aAcc, rows.reduce((sum, row, c) => sum + row[c], 0) / total);
    assert.equal(numbers.images.length, 4);
    assert.deepEqual(
      numbers.classes.map(({ name }: { name: string }) => name),
      classes.map(({ name }) => name),
    );
    const page = Deno.readTextFileSync(`${at}.html`);
    assert.equal([...page.matchAll(/<img src="data:image\/jpeg;base64,/g)].length, 3 * 4);
    assert.doesNotMatch(page, /https?:|<script|<link/);

    const whole = await runSlotcon(
      ...[folder, "evaluate", "segmentation", file, "--data-dir", "data", "--test-mode", "whole"] as const,
      ...["--output", "whole.json", "--pictures", "2"],
    );
    assert.equal(whole.code, 0, whole.err);
    assert.match(whole.out, /scored on 2 pictures .* as a whole/);
    assert.equal(JSON.parse(Deno.readTextFileSync(join(folder, "whole.json"))).testMode, "whole");
  }),
);

Deno.test(
  "slotcon evaluate segmentation refuses what it cannot score, in one sentence",
  inTestFolder(async (folder) => {
    const { file } = await Effect.runPromise(smallCheckpoint(folder, SMALL.d16));
    for (const split of ["images/val", "labels/val"]) {
      await Deno.mkdir(join(folder, "data", split), { recursive: true });
    }
    const grey = sharp({ create: { width: 8, height: 8, channels: 3, background: "#777" } });
    await grey.clone().jpeg().toFile(join(folder, "data/images/val/a.jpg"));
    await grey.clone().linear(0, 1).toColourspace("b-w").png().toFile(join(folder, "data/labels/val/a.png"));
    await Deno.writeTextFile(join(folder, "data/classes.yaml"), "classes: [sky, road]\n");
    const refused = async (...more: string[]) => {
      const { code, err } = await runSlotcon(folder, "evaluate", "segmentation", file, ...more);
      assert.equal(code, 1);
      return err.trim();
    };
    assert.match(
      await refused("--data-dir", "data", "--dataset", "masks"),
      /^slotcon: --data-dir: "data" has 2 classes, the segmentor 3: /,
    );
    assert.match(
      await refused(
        "--data-dir",
        "data",
        "--dataset",
        "masks",
        "--window-stride",
        "700",
        "--test-mode",
        "windows",
      ),
      /^slotcon: --window-stride: expected at most the windows' side 513, found 700$/,
    );
    const encoder = join(import.meta.dirname!, "../testdata/checkpoint/tiny_lars.pth");
    const { err } = await runSlotcon(folder, "evaluate", "segmentation", encoder, "--data-dir", "data");
    assert.match(err, /tiny_lars\.pth": it has no segmentor/);
  }),
);
