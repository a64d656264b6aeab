import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { testFolder } from "../../data/_test_kit.ts";
import { readPicture } from "../../data/images/decode_image.ts";
import { randomStream } from "../../data/random/random.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { mul } from "../../ops/arithmetic.ts";
import { mean } from "../../ops/reduce.ts";
import { tinyRun } from "../_test_kit.ts";
import { slotMapper } from "../inference/slot_program.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { latestCheckpoint } from "../run/checkpoint_file.ts";
import { distinctColors } from "../visualize/colors.ts";
import { tinted } from "../visualize/tinted.ts";
import type { Config } from "./config.ts";
import { pretrain } from "./pretrain.ts";

const SIZE = 32;

/** Twelve pictures of smooth colours, one of which is none, and a run of 30 steps. */
const prepared = Effect.gen(function* () {
  const folder = yield* testFolder;
  const images = Array.from({ length: 12 }, (_, i) => join(folder, `${i}.png`));
  for (const [i, image] of images.entries()) {
    const random = randomStream(3, i);
    const data = Uint8Array.from({ length: 4 * 4 * 3 }, () => random.integer(256));
    const small = sharp(data, { raw: { width: 4, height: 4, channels: 3 } }).resize(40, 40, {
      kernel: "linear",
    });
    yield* Effect.promise(() => small.png().toFile(image));
  }
  yield* Effect.promise(() => Deno.writeTextFile(images[2], "no picture"));
  const config = yield* tinyRun({
    ...{ imageSize: SIZE, epochs: 20, steps: 30, maxBadImages: 0.5, printFreq: 7 },
  });
  return { config, images };
});

const json = (config: Config, file: string) =>
  Deno.readTextFileSync(join(config.outputDir, file)).trim().split("\n").map((line) => JSON.parse(line));

gpuTest(
  "a run draws the teacher's slots as a checkpoint of the same step gives them, and tells its time",
  function* () {
    const { config, images } = yield* prepared;
    yield* pretrain(config, images);
    const folder = join(config.outputDir, "slot_maps");
    const names = Array.from(Deno.readDirSync(folder), ({ name }) => name).sort();
    assert.deepEqual(names, ["pictures.jpg", "step_000000.jpg", "step_000025.jpg", "step_000030.jpg"]);

    const { tensors } = (yield* latestCheckpoint(config.outputDir))!;
    const map = yield* slotMapper(config, tensors, {
      resize: Math.round(SIZE * 256 / 224),
      crop: SIZE,
      batch: 4,
    });
    const shown = [0, 3, 4, 6, 8, 10]; // every second, but the third file is none
    const maps = yield* map(yield* Effect.forEach(shown, (i) => readPicture(images[i])));
    const colors = distinctColors(config.numPrototypes);
    const differences = Effect.fnUntraced(function* (file: string) {
      const { width, height, rgb } = yield* readPicture(join(folder, file));
      assert.deepEqual([width, height], [6 * SIZE, SIZE]);
      const distances = maps.flatMap(({ picture, slots }, i) => {
        const want = tinted(picture, slots, colors).rgb;
        return Array.from(want, (value, at) => {
          const [y, x] = [Math.floor(at / 3 / SIZE), Math.floor(at / 3) % SIZE];
          return Math.abs(value - rgb[3 * (y * width + i * SIZE + x) + at % 3]);
        });
      });
      return distances.reduce((sum, distance) => sum + distance) / distances.length;
    });
    assert.ok((yield* differences("step_000030.jpg")) < 8); // of 255: what JPEG loses
    assert.ok((yield* differences("step_000000.jpg")) > 16);

    const times = json(config, "times.jsonl");
    assert.deepEqual(times.map(({ step, steps }) => [step, steps]), [[6, 7], [13, 7], [20, 7], [27, 7], [
      29,
      2,
    ]]);
    for (const { host, device } of times) {
      assert.ok(
        Object.values(host as Record<string, number>).every((seconds) => seconds >= 0),
        JSON.stringify(host),
      );
      if (device !== null) {
        assert.deepEqual(Object.keys(device), [
          "augment",
          "forward",
          "backward",
          "update",
        ]);
      }
    }
    const plan = JSON.parse(Deno.readTextFileSync(join(config.outputDir, "plan.json")));
    assert.ok(plan.memory.slot_maps > 0 && plan.deviceBytes > plan.memory.slot_maps + plan.memory.state);
  },
);

gpuTest("a run of the user's own without such a teacher goes on without slot maps", function* () {
  const { config, images } = yield* prepared;
  yield* pretrain({ ...config, steps: 2, printFreq: 1 }, images, (views) => {
    const state = new StateBuilder();
    const weight = state.declare("encoder_q.weight", {
      role: "buffer",
      shape: [3],
      storage: "same",
      init: { kind: "constant", value: 1 },
    });
    state.updates.set(weight, mul(0.9, weight));
    return { state, metrics: { loss: mean(mul(weight, views.images)) } };
  });
  assert.ok(!Array.from(Deno.readDirSync(config.outputDir), ({ name }) => name).includes("slot_maps"));
  assert.deepEqual(json(config, "metrics.jsonl").length, 2);
});
