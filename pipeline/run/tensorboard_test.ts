import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { inTestFolder } from "../../data/_test_kit.ts";
import { pythonTest } from "../../data/_test_python.ts";
import { configure } from "../pretrain/config.ts";
import { NO_TIME } from "./phase_timer.ts";
import { openRunFolder } from "./run_folder.ts";

const picture = async (step: number) => {
  const size = { width: 40, height: 30 };
  const file = await sharp({ create: { ...size, channels: 3, background: { r: step, g: 0, b: 99 } } }).jpeg()
    .toBuffer();
  return { ...size, file };
};

/** What a run does to its folder in these steps. */
const run = (outputDir: string, steps: readonly number[], tensorboard = true) =>
  Effect.runPromise(Effect.scoped(Effect.gen(function* () {
    const config = { ...yield* configure("demo"), batchSize: 16, outputDir, tensorboard };
    const memory = { state: 1, batch: 0, constants: 0, activations: 0, scratch: 0 };
    const sizes = { lastStep: 40, stepsPerEpoch: 4, batchSize: 8, printFreq: 3 };
    const plan = { ...sizes, deviceBytes: 1, memory, device: "a GPU", kernels: {} };
    const folder = yield* openRunFolder(config, { ...plan, firstStep: steps[0] });
    for (const step of steps) {
      const losses = { loss: 4 / (step + 1) + 1000 * steps[0], loss_group: 1, loss_slot: 3 };
      const metrics = { ...losses, lr: 0.02, teacher_momentum: 0.99, bad_images: 0 };
      yield* folder.record({
        step,
        epoch: 1 + Math.floor(step / 4),
        metrics,
        imagesPerSecond: 2,
        seconds: NO_TIME,
      });
      const shown = yield* Effect.promise(() => picture(step));
      if (step % 2 === 0) yield* folder.images(step + 1, new Map([["slots/a b", shown]]));
    }
    yield* folder.flush;
  })));

const eventFiles = (run: string) =>
  Array.from(Deno.readDirSync(join(run, "tensorboard")), ({ name }) => join(run, "tensorboard", name)).sort();

const READ = `
import base64, json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as Plugins
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
plugins = Plugins(sys.argv[1], size_guidance={"tensors": 0}).Reload()
print(json.dumps({
  "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]},
  "images": {tag: [[e.step, e.width, e.height, base64.b64encode(e.encoded_image_string).decode()]
                   for e in events.Images(tag)] for tag in events.Tags()["images"]},
  "texts": {tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in plugins.Tensors(tag)]
            for tag in plugins.PluginTagToContent("text")},
  "plugins": {tag: plugins.SummaryMetadata(tag).plugin_data.plugin_name for tag in plugins.Tags()["tensors"]},
  "steps": [e.step for e in plugins.Tensors("train/loss")],
}))`;

interface Read {
  readonly scalars: Record<string, [number, number][]>;
  readonly images: Record<string, [number, number, number, string][]>;
  readonly texts: Record<string, [number, string][]>;
  readonly plugins: Record<string, string>;
  readonly steps: number[];
}

pythonTest(
  "TensorBoard reads each step of a run once that was cut short and went on",
  "tensorboard",
  (python) =>
    inTestFolder(async (folder) => {
      await run(folder, [0, 1, 2, 3, 4, 5, 6, 7]);
      const [first] = eventFiles(folder);
      await Deno.truncate(first, (await Deno.stat(first)).size - 7); // killed while it wrote
      await run(folder, [3, 4, 5]); // and killed again
      await run(folder, [5, 6, 7, 8]);
      const read = await python(READ, join(folder, "tensorboard")) as Read;

      const lines = (await Deno.readTextFile(join(folder, "metrics.jsonl"))).trim().split("\n")
        .map((line) => JSON.parse(line));
      assert.equal(lines.length, 9);
      const { step: _, ...names } = lines[0];
      const wanted = Object.keys(names).map((name) => [
        `train/${name}`,
        lines.map((line) => [line.step, Math.fround(line[name])]),
      ]);
      assert.deepEqual(read.scalars, Object.fromEntries(wanted));
      assert.deepEqual(read.steps, lines.map(({ step }) => step));
      const shown = [0, 2, 4, 6, 8].map(async (step) => {
        const { width, height, file } = await picture(step);
        return [step, width, height, file.toString("base64")];
      });
      assert.deepEqual(read.images, { "slots/a b": await Promise.all(shown) });
      assert.deepEqual(read.texts.config.map(([step]) => step), [0, 3, 5]);
      assert.match(
        read.texts.config[0][1],
        /^\| option \| value \|\n\| --- \| --- \|\n[^]*\| batch-size \| 16 \|/,
      );
      assert.deepEqual([read.plugins["train/loss"], read.plugins["slots/a b"]], ["scalars", "images"]);
    })(),
);

Deno.test(
  "openTensorBoard() names a file behind all others, whatever the clock says, and a new run's folder is its own",
  inTestFolder(async (folder) => {
    await run(folder, [0, 1]);
    await Deno.rename(
      eventFiles(folder)[0],
      join(folder, "tensorboard", "events.out.tfevents.4000000000.host"),
    );
    await run(folder, [2]);
    await run(folder, [3]);
    assert.deepEqual(
      eventFiles(folder).map((file) => file.split("tfevents.")[1]),
      ["4000000000.host", "4000000001.slotcon", "4000000002.slotcon"],
    );
    await run(folder, [0]);
    assert.equal(eventFiles(folder).length, 1);
    assert.equal(Array.from(Deno.readDirSync(join(folder, "before.1", "tensorboard"))).length, 3);
    await run(join(folder, "without"), [0], false);
    assert.throws(() => eventFiles(join(folder, "without")), Deno.errors.NotFound);
  }),
);
