import assert from "node:assert/strict";
import { Effect } from "effect";
import { assertClose, gpuTest, numbers } from "../../../ops/_test_kit.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { onRanks } from "../../../ops/runtime/_test_ranks.ts";
import { compile } from "../../../ops/runtime/program.ts";
import { acrossRanks } from "../../ranks/sync.ts";
import { initialState } from "../../run/initial_state.ts";
import { download, upload } from "../../run/state.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { segmentationStep } from "./step.ts";
import { segmentationStepGraph } from "./step_graph.ts";

const CLASSES = 4;

/** A small d8 with everything that a step can have, as the recipe for ADE20K has it; crops are of 33 × 33 pixels. */
const CONFIG: SegmentationConfig = {
  ...Effect.runSync(SEGMENTATION_OPTIONS.configure("ade20k")),
  ...{ arch: "resnet18", width: 8, headChannels: 8, auxiliaryChannels: 6, cropSize: 33, batchSize: 4 },
};

/** A packed batch: fields of colours that tell the class, of which the third image has none that counts. */
const packed = (config: SegmentationConfig = CONFIG) => {
  const { batchSize: B, cropSize: S } = config;
  const noise = numbers(B * S * S);
  const pixels = Uint32Array.from(noise, (value, i) => {
    const [n, y, x] = [Math.floor(i / S / S), Math.floor(i / S) % S, i % S];
    const label = (Math.floor(y / 11) + Math.floor(x / 11) + n) % CLASSES;
    const [r, g, b] = [60 * label, 200 - 50 * label, 128].map((level) =>
      Math.round(level + 20 * value) & 255
    );
    return (r | g << 8 | b << 16 | (n === 2 || y >= 30 ? 255 : label) << 24) >>> 0;
  });
  const kept = (channels: number, seed: number) =>
    numbers(B * channels, seed).map((value) => value < -0.8 ? 0 : 1 / 0.9);
  return {
    pixels,
    sizes: Uint32Array.from({ length: 2 * B }, (_, i) => i % 2 === 0 ? 30 : S),
    keptHead: kept(config.headChannels, 2),
    keptAuxiliary: kept(config.auxiliaryChannels, 3),
    learningRate: Float32Array.of(0.05),
  };
};

/** Metrics of so many steps on the same batch, and the state after them. */
const trained = Effect.fnUntraced(function* (config: SegmentationConfig, steps: number) {
  const { state, graph } = segmentationStepGraph(config, CLASSES);
  const buffers = yield* upload(state, initialState(state, 0));
  const program = yield* compile(graph, buffers);
  const metrics: Record<string, number>[] = [];
  for (let step = 0; step < steps; step++) {
    const found = yield* yield* program.run(packed(config));
    metrics.push(Object.fromEntries(Object.entries(found).map(([name, [value]]) => [name, value])));
  }
  return { metrics, after: yield* download(state, buffers) };
});

gpuTest("segmentationStepGraph() learns from packed images, with the same bits again", function* () {
  const { metrics, after } = yield* trained(CONFIG, 25);
  const [first, last] = [metrics[0], metrics[metrics.length - 1]];
  const names = ["loss", "loss_head", "acc_head", "loss_aux", "acc_aux", "param_norm", "grad_norm"];
  assert.deepEqual(Object.keys(first), names);
  assert.ok(Math.abs(first.loss - (first.loss_head + first.loss_aux)) < 1e-6);
  // A quarter of the images and three rows in 33 do not count: the loss of guessing is so much less than log 4.
  assert.ok(Math.abs(first.loss_head - 0.75 * 30 / 33 * Math.log(CLASSES)) < 0.1, `${first.loss_head}`);
  assert.ok(last.loss_head < 0.7 * first.loss_head && last.acc_head > 70, JSON.stringify(last));
  const again = yield* trained(CONFIG, 25);
  assert.deepEqual(again.metrics, metrics);
  for (const [name, { data }] of after) assert.deepEqual(again.after.get(name)!.data, data, name);
});

gpuTest(
  "segmentationStepGraph() keeps to f32 in half precision, and to fewer bytes with the same bits",
  function* () {
    const whole = yield* trained(CONFIG, 3);
    const half = yield* trained({ ...CONFIG, precision: "f16" }, 3);
    for (const [i, { loss, grad_norm }] of half.metrics.entries()) {
      assert.ok(Math.abs(loss / whole.metrics[i].loss - 1) < 0.02, `loss ${loss}`);
      assert.ok(Math.abs(grad_norm / whole.metrics[i].grad_norm - 1) < 0.1, `gradient ${grad_norm}`);
    }
    const limited = yield* trained({ ...CONFIG, memoryLimit: "2.5MiB" }, 3);
    assert.deepEqual(limited.metrics, whole.metrics);
  },
);

gpuTest("segmentationStep() of two ranks is that of one on the whole batch", function* () {
  const [B, S] = [4, 17];
  const options = { ...CONFIG, dropout: 0, classes: CLASSES };
  const images = numbers(B * S * S * 3), rate = Float32Array.of(0.05);
  const labels = Uint32Array.from(
    numbers(B * S * S, 4),
    (value, i) => i < S * S || value > 0.8 ? 255 : 3 & i,
  );
  const stepOf = (b: number, sync = acrossRanks(0, 1)) =>
    segmentationStep(
      { images: input("images", [b, S, S, 3]), labels: input("labels", [b, S, S], "u32"), kept: null },
      input("rate", []),
      { ...options, sync },
    );
  const run = Effect.fnUntraced(function* (rank: number, world: number) {
    const b = B / world;
    const own = <A extends Float32Array | Uint32Array>(all: A) =>
      all.subarray(rank * all.length / world, (rank + 1) * all.length / world) as A;
    const { state, metrics } = stepOf(b, acrossRanks(rank, world));
    const buffers = yield* upload(state, initialState(state, 0));
    const program = yield* compile({ label: "step", updates: state.updates, outputs: metrics }, buffers);
    const found = yield* yield* program.run({ images: own(images), labels: own(labels), rate });
    return { found, after: yield* download(state, buffers) };
  });
  const alone = yield* run(0, 1);
  for (const { found, after } of yield* onRanks(2, (rank) => run(rank, 2))) {
    for (const [name, value] of Object.entries(alone.found)) {
      assertClose(found[name], value, { rtol: 1e-4, what: name });
    }
    for (const [name, { data }] of alone.after) {
      assertClose(after.get(name)!.data, data, { rtol: 1e-4, atol: 1e-6, what: name });
    }
  }
});
