import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../data/_test_kit.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { PRETRAIN } from "../pipeline/pretrain/task.ts";
import { saveCheckpoint } from "../pipeline/run/checkpoint_file.ts";
import { runTrimmed as slotcon } from "./_test_kit.ts";

const reference = new URL("../testdata/checkpoint/tiny_lars.pth", import.meta.url).pathname;

Deno.test(
  "slotcon convert lists a file, writes another, and loses none",
  inTestFolder(async (folder) => {
    const listed = await slotcon(folder, "convert", reference, "--list");
    assert.equal(listed.out.split("\n").length, 870, listed.err);
    assert.match(listed.out, /^scaler\.scale +f32 +\[\]$/m);
    assert.match(listed.out, /^encoder_k\.layer1\.0\.bn1\.num_batches_tracked +i64 +\[\]$/m);

    const written = await slotcon(folder, "convert", "--to", "mmseg", reference, "out.pth");
    assert.deepEqual([written.code, written.err], [0, ""]);
    assert.match(
      written.out,
      /^out\.pth: \d+ KiB, mmseg, from a checkpoint of the published code after epoch 2/,
    );
    const bytes = await Deno.readFile(`${folder}/out.pth`);

    const cases: [string[], RegExp][] = [
      [[reference, "out.pth", "--to", "onnx"], /^slotcon: OUT: "out\.pth" exists: name another file$/],
      [[reference, "."], /^slotcon: OUT: expected --to slotcon\|pth\|.*, found nothing$/],
      [[reference, ".", "--to", "pth"], /^slotcon: OUT: "\." is a folder: name another file$/],
      [
        [reference, "none/x.pth", "--to", "pth"],
        /^slotcon: OUT: cannot write "none\/x\.pth": .*[Nn]o such file/,
      ],
      [["none.pth", "x.pth", "--to", "pth"], /^slotcon: Cannot read "none\.pth": there is no such file$/],
      [
        ["out.pth", "x.pth", "--to", "pth"],
        /^slotcon: Cannot convert "out\.pth" to pth: .* no run with an optimiser/,
      ],
      [[reference, "x.pth", "--to", "caffe"], /^slotcon: --to: expected .*"mmseg".*, found "caffe"$/],
    ];
    for (const [args, expected] of cases) {
      const { code, err } = await slotcon(folder, "convert", ...args);
      assert.equal(code, 1, args.join(" "));
      assert.match(err.split("\n")[0], expected);
    }
    assert.deepEqual(await Deno.readFile(`${folder}/out.pth`), bytes);
    assert.deepEqual(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["out.pth"]);
  }),
);

Deno.test(
  "slotcon inspect tells what a file is, and by its exit status whether it is sound",
  inTestFolder(async (folder) => {
    const { code, out } = await slotcon(folder, "inspect", reference);
    assert.equal(code, 0);
    assert.match(out, /4 steps, 2 of 4 epochs done/);
    assert.match(out, /^encoder_k +265 +26,510 +50\.36 +7\.50 +0$/m);

    await slotcon(folder, "convert", reference, "whole.safetensors", "--to", "slotcon");
    const bytes = await Deno.readFile(`${folder}/whole.safetensors`);
    bytes[bytes.length - 3] ^= 1;
    await Deno.writeFile(`${folder}/damaged.safetensors`, bytes);
    const damaged = await slotcon(folder, "inspect", "damaged.safetensors", "--json");
    assert.equal(damaged.code, 1);
    const report = JSON.parse(damaged.out);
    assert.equal(report.sound, false);
    assert.match(report.damaged[0], /^tensor "[\w.]+" \(bytes \d+ to \d+\) does not match its checksum$/);
  }),
);

Deno.test(
  "slotcon inspect names an optimiser of the user's own",
  inTestFolder(async (folder) => {
    const config = { ...await Effect.runPromise(configure("demo")), optimizer: "adamW" };
    const meta = { step: 3, teacherCounter: 3, instances: 40, config };
    const tensors = new Map([["center", { shape: [1, 2], data: Float32Array.of(1, 2) }]]);
    const file = await Effect.runPromise(saveCheckpoint(folder, PRETRAIN, { meta, tensors }));
    const { code, out } = await slotcon(folder, "inspect", file);
    assert.equal(code, 0);
    assert.match(out, /^optimiser +adamW, of a step of the user's own$/m);
    assert.doesNotMatch(out, /--optimizer/);
    const json = await slotcon(folder, "inspect", file, "--json");
    assert.equal(JSON.parse(json.out).run.options.optimizer, "adamW");
  }),
);
