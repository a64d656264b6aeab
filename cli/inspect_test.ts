import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../data/_test_kit.ts";
import { SMALL, smallCheckpoint } from "../pipeline/transfer/segmentation/_test_segmentor.ts";
import { runSlotcon } from "./_test_kit.ts";

Deno.test(
  "slotcon inspect tells a segmentor's classes, run and options, and convert what it is of",
  inTestFolder(async (folder) => {
    const { file } = await Effect.runPromise(smallCheckpoint(folder, SMALL.d8));
    const own = await runSlotcon(folder, "inspect", file);
    assert.equal(own.code, 0, own.err);
    assert.match(
      own.out,
      /a segmentor of 3 classes, a checkpoint of fine-tuning after step 7 \(safetensors\)/,
    );
    assert.match(own.out, /classes +3: nothing, road, tree\n/);
    assert.match(own.out, /run +7 of 80000 steps done\n/);
    assert.match(own.out, /--output-stride 8 .*--concat-input true/);

    const written = await runSlotcon(folder, "convert", file, "out.pth", "--to", "mmseg-segmentor");
    assert.match(written.out, /^out\.pth: \d+ KiB, mmseg-segmentor, from a segmentor of 3 classes/);
    const { code, out } = await runSlotcon(folder, "inspect", "out.pth", "--json");
    const facts = JSON.parse(out);
    assert.equal(code, 0);
    assert.equal(facts.is, "a segmentor of 3 classes under mmsegmentation's names (PyTorch zip)");
    assert.deepEqual(facts.segmentor, {
      ...{ classes: ["nothing", "road", "tree"], miou: null, step: null, options: null },
    });
    assert.deepEqual(facts.encoder, { arch: "resnet50", width: 4 });
  }),
);
