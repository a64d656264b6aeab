import assert from "node:assert/strict";
import { Effect } from "effect";
import { NO_TIME } from "../../pipeline/run/phase_timer.ts";
import { Progress, type RunPlan, type StepReport } from "../../pipeline/run/progress.ts";
import { layerReport, liveLine } from "./terminal_progress.ts";
import { voice } from "./voice.ts";

const plan: RunPlan = {
  firstStep: 0,
  lastStep: 6,
  stepsPerEpoch: 2,
  batchSize: 8,
  deviceBytes: 3 * 2 ** 29,
  memory: { state: 1, batch: 0, constants: 0, activations: 0, scratch: 0 },
  device: "a GPU",
  kernels: {},
  printFreq: 2,
};
const report = (step: number): StepReport => ({
  step,
  epoch: 1 + Math.floor(step / 2),
  metrics: { loss: 4, loss_group: 1, loss_slot: 3, lr: 0.02, teacher_momentum: 0.99, bad_images: 0 },
  imagesPerSecond: 2,
  seconds: NO_TIME,
});

/** What a run of six steps with one message after the third writes, on a screen so wide (null: no terminal). */
const shown = (columns: number | null) => {
  const written: string[] = [];
  let time = 0;
  const write = (text: string) => void written.push(text);
  const screen = { columns: () => columns, out: write, err: write, now: () => time += 1000, voice };
  Effect.runSync(
    Effect.gen(function* () {
      const progress = yield* Progress;
      yield* progress.begin(plan);
      for (let step = 0; step < 6; step++) {
        yield* progress.step(report(step));
        if (step === 2) yield* Effect.logWarning("a.jpg is no picture");
      }
    }).pipe(Effect.provide(layerReport(screen))),
  );
  return written.join("");
};

Deno.test("layerReport() writes plain lines every print-freq steps where there is no terminal", () => {
  const lines = shown(null).trimEnd().split("\n");
  assert.equal(lines.length, 4);
  assert.match(lines[0], /^epoch 1 +step 2\/6 +loss 4.0000 \(group 1.0000, slot 3.0000\)/);
  assert.equal(lines[1], "Warn: a.jpg is no picture");
});

Deno.test("layerReport() keeps one live line under the messages of a terminal", () => {
  const rows: string[] = [""]; // a terminal that knows newline, return and clear-to-end
  for (const piece of shown(200).replaceAll("\r\x1b[K", "\r").split(/([\n\r])/)) {
    if (piece === "\n") rows.push("");
    else if (piece === "\r") rows[rows.length - 1] = "";
    else rows[rows.length - 1] += piece;
  }
  assert.equal(rows.length, 3);
  assert.equal(rows[0], "Warn: a.jpg is no picture");
  assert.equal(
    rows[1],
    "▕████████████████████▏  epoch 3/3  step 6/6  loss 4.000  = group 1.000 + slot 3.000  lr 0.0200  2.00 images/s  " +
      "1.50 GiB  0 s left",
  );
});

Deno.test("layerReport() has the voice say what a run does until its first step, and hear what is said", () => {
  const told: string[] = [];
  const voice = { doing: (words: string) => void told.push(words), heard: () => void told.push("(heard)") };
  const screen = { columns: () => null, out: () => {}, err: () => {}, now: () => 0, voice };
  Effect.runSync(
    Effect.gen(function* () {
      const { preparing, begin, step } = yield* Progress;
      yield* preparing!("Compiling: 0 kernels so far");
      yield* preparing!("Compiling: 1 kernels so far");
      yield* Effect.logInfo("12 pictures");
      yield* begin(plan);
      yield* step(report(0));
    }).pipe(Effect.provide(layerReport(screen))),
  );
  assert.deepEqual(told, ["Compiling: 0 kernels so far", "Compiling: 1 kernels so far", "(heard)", ""]);
});

Deno.test("liveLine() never exceeds the terminal and always tells step and loss", () => {
  for (let columns = 24; columns < 160; columns++) {
    const line = liveLine(report(3), plan, columns);
    assert.ok(line.length <= columns);
    assert.ok(line.includes("step 4/6  loss 4.000"));
  }
});
