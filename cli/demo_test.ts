import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../data/_test_kit.ts";
import { runSlotcon } from "./_test_kit.ts";

const demo = (folder: string, ...args: string[]) => runSlotcon(folder, "demo", ...args);

Deno.test(
  "slotcon demo leaves a run and a picture, scores both, and does not mix runs of two seeds",
  inTestFolder(async (folder) => {
    const { code, out, err } = await demo(folder, "--output-dir", "run", "--steps", "2");
    assert.equal(code, 0, err);
    assert.deepEqual([...Deno.readDirSync(join(folder, "run"))].map(({ name }) => name).sort(), [
      ...["checkpoints", "config.json", "data", "log.txt", "metrics.jsonl", "plan.json"],
      ...["report.html", "run.json", "slot_maps", "slots.png", "times.jsonl"],
    ]);
    for (const grouping of ["k-means", "before training", "after 2 steps"]) {
      assert.match(out, new RegExp(`${grouping}\\)? +0\\.\\d+ +0\\.\\d+`));
    }
    const page = await Deno.readTextFile(join(folder, "run", "report.html"));
    assert.match(page, /slots after 2 steps.*<svg/s);
    assert.doesNotMatch(page, /<script|https?:/);
    const other = await demo(folder, "--output-dir", "run", "--steps", "2", "--seed", "1");
    assert.equal(other.code, 1);
    assert.match(other.err, /"run" holds a demo with --seed 0, not 1/);

    const own = ["--output-dir", "run", "--data-dir", "run/data", "--steps", "1", "--image-size", "64"];
    const pretrained = await runSlotcon(folder, "pretrain", "--preset", "demo", ...own);
    assert.equal(pretrained.code, 0, pretrained.err);
    await Deno.stat(join(folder, "run", "before.1", "checkpoints", "step_000002.safetensors"));
    await Deno.stat(join(folder, "run", "before.1", "slots.png"));
    const mixed = await demo(folder, "--output-dir", "run", "--steps", "2");
    assert.equal(mixed.code, 1);
    assert.match(mixed.err, /"run" holds another run, with --image-size 64, not 96: name another/);
  }),
);
