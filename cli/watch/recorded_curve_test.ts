import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Effect } from "effect";
import { inTestFolder, shell } from "../../data/_test_kit.ts";
import { readCurve } from "./recorded_curve.ts";

Deno.test(
  "readCurve() reads the same curve from JSON lines, JSON and CSV, and says what it expects of other files",
  inTestFolder(async (folder) => {
    const files = {
      "metrics.jsonl":
        '{"step":0,"loss":5.5,"lr":1}\n{"step":10,"loss":NaN}\n{"step":20,"loss":4}\n{"step":3',
      "objects.json": '[{"step":20,"loss":4},{"step":0,"loss":5.5}]',
      "arrays.json": '{"step":[0,20],"loss":[5.5,4]}',
      "own.csv": "epoch,step,loss\n1,0,5.5\n1,10,\n1,20,4\n",
      "board.csv": "Wall time,Step,Value\r\n1.5,0,5.5\r\n2.5,20,4\r\n",
    };
    for (const [name, content] of Object.entries(files)) {
      await Deno.writeTextFile(join(folder, name), content);
      const { steps, loss } = await Effect.runPromise(readCurve(join(folder, name)));
      assert.deepEqual([[...steps], [...loss]], [[0, 20], [5.5, 4]], name);
    }
    for (
      const [name, content] of [["a.csv", "a,b\n1,2\n"], ["b.txt", "hello"], ["c.safetensors", "no tensors"]]
    ) {
      await Deno.writeTextFile(join(folder, name), content);
      const { message } = await Effect.runPromise(Effect.flip(readCurve(join(folder, name))));
      assert.match(message, /^--overlay ".*": .*; expected steps and losses/, name);
    }
    // What cannot be read to its end, or is nested without sense.
    await Deno.mkdir(join(folder, "folder"));
    await shell('mkfifo "$0"', [join(folder, "pipe")]).output();
    await Deno.writeTextFile(join(folder, "deep.json"), "[".repeat(100_000) + "]".repeat(100_000));
    await Deno.writeTextFile(join(folder, "huge.csv"), "step,loss\n1e300,1\n1,1e300\n");
    for (
      const [name, reason] of [
        ["folder", /it is a folder/],
        ["pipe", /a pipe or a device/],
        ["deep.json", /no step with a loss/],
        ["huge.csv", /no step with a loss/],
        ["gone", /there is no such file/],
      ] as const
    ) assert.match((await Effect.runPromise(Effect.flip(readCurve(join(folder, name))))).message, reason);
  }),
);

Deno.test("readCurve() finds the losses in a recording of training steps", async () => {
  const file = fileURLToPath(new URL("../../testdata/steps/resnet18_world2.safetensors", import.meta.url));
  const { steps, loss } = await Effect.runPromise(readCurve(file));
  assert.deepEqual([...steps], [0, 1]);
  assert.ok(loss.every((value) => value > 0 && value < 20));
});
