/** Small runs as real processes, started as a user starts them, for tests of what becomes of them. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { Effect } from "effect";
import sharp from "sharp";
import { randomStream } from "../data/random/random.ts";
import { latestCheckpoint } from "../pipeline/run/checkpoint_file.ts";

export const makePictures = async (folder: string) => {
  await Deno.mkdir(folder);
  for (let i = 0; i < 12; i++) {
    const random = randomStream(7, i);
    const [width, height] = [48 + i, 60 - i];
    const data = Uint8Array.from({ length: width * height * 3 }, () => random.integer(256));
    await sharp(data, { raw: { width, height, channels: 3 } }).png().toFile(join(folder, `${i}.png`));
  }
};

/** The launcher. */
export const slotcon = join(import.meta.dirname!, "slotcon");

/** The command line of a run of a tiny network, which saves at every step and goes on from what it finds in its folder. */
export const pretrainArguments = (pictures: string, output: string, steps: number): readonly string[] => [
  ...["pretrain", "--dataset", "Folder", "--data-dir", pictures, "--output-dir", output, "--auto-resume"],
  ..."--arch resnet18 --width 4 --output-stride 8 --dim-hidden 8 --dim-out 8 --num-prototypes 4".split(
    " ",
  ),
  ..."--image-size 32 --batch-size 4 --epochs 200 --warmup-epoch 1 --num-workers 1".split(" "),
  ..."--save-steps 1 --keep 2 --steps".split(" "),
  String(steps),
];

export const start = (pictures: string, output: string, steps: number, ...more: readonly string[]) =>
  new Deno.Command("sh", {
    args: [slotcon, ...pretrainArguments(pictures, output, steps), ...more],
    stdout: "piped",
    stderr: "piped",
  }).spawn();

/** Such a run, to its end. */
export const finish = async (...args: Parameters<typeof start>) => {
  const { code, stderr } = await start(...args).output();
  assert.equal(code, 0, new TextDecoder().decode(stderr));
};

export const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const currentOf = (output: string): string => {
  try {
    return Deno.readTextFileSync(join(output, "checkpoints", "current"));
  } catch {
    return "";
  }
};

/** The state at the end, as checksums, and the metrics of all steps without what depends on the clock. */
export const result = async (output: string, steps: number) => {
  const checkpoint = await Effect.runPromise(latestCheckpoint(output));
  assert.equal(checkpoint?.meta.step, steps);
  const lines = Deno.readTextFileSync(join(output, "metrics.jsonl")).trim().split("\n");
  return {
    tensors: Object.fromEntries(
      [...checkpoint.tensors].map(([name, { data }]) => [
        name,
        createHash("sha256").update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)).digest(
          "hex",
        ),
      ]),
    ),
    metrics: lines.map((line) => ({ ...JSON.parse(line), images_per_second: null })),
  };
};
