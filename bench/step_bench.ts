import assert from "node:assert/strict";
import { Effect } from "effect";
import { drawScene } from "../data/datasets/draw_scene.ts";
import { randomStream } from "../data/random/random.ts";
import { numbers } from "../ops/_test_kit.ts";
import { add, div, mul, neg } from "../ops/arithmetic.ts";
import { averagePool } from "../ops/average_pool.ts";
import { constant, input, reshape, type Tensor } from "../ops/graph/tensor.ts";
import { augmentationRowWords } from "../ops/image/augmentation_row.ts";
import { sum } from "../ops/reduce.ts";
import { compile, type Upload } from "../ops/runtime/program.ts";
import { logSoftmax } from "../ops/softmax.ts";
import { linear } from "../pipeline/model/network.ts";
import { encoder } from "../pipeline/model/resnet.ts";
import { student } from "../pipeline/model/slotcon_network.ts";
import { StateBuilder } from "../pipeline/model/state_builder.ts";
import { optimize } from "../pipeline/optim/optimize.ts";
import { augment, packingFor } from "../pipeline/pretrain/augment.ts";
import { configure } from "../pipeline/pretrain/config.ts";
import { drawTwoCrops } from "../pipeline/pretrain/draws.ts";
import { packBatch } from "../pipeline/pretrain/pack.ts";
import { rateInputs, slotConStep } from "../pipeline/pretrain/step.ts";
import { singleProcess } from "../pipeline/ranks/sync.ts";
import { initialState } from "../pipeline/run/initial_state.ts";
import { upload } from "../pipeline/run/state.ts";
import { bench } from "./_kit.ts";
import { runsOf } from "./_timing.ts";

const MOMENTUM = 0.9; // of every optimiser here

/** A training step: state with its next values, the loss, and the gradients along which the state moves. */
interface TrainingStep {
  readonly state: StateBuilder;
  readonly loss: Tensor;
  readonly slopes: readonly Tensor[];
}

type Uploads = Readonly<Record<string, Upload>>;

const compiled = Effect.fnUntraced(function* ({ state, loss, slopes }: TrainingStep, checked: boolean) {
  const buffers = yield* upload(state, initialState(state, 0));
  const squares = () => slopes.map((slope) => sum(mul(slope, slope))).reduce(add);
  const outputs = { loss, ...checked ? { squares: squares() } : {} };
  return yield* compile({ label: "the step", updates: state.updates, outputs }, buffers);
});

/** Fails unless a small step lowers the loss by its length times the slope: every gradient takes part in that. */
const assertDescends = (step: TrainingStep, uploads: Uploads) =>
  Effect.scoped(Effect.gen(function* () {
    const program = yield* compiled(step, true);
    const move = Effect.fnUntraced(function* (rate: number) {
      const outputs = yield* Effect.flatten(
        program.run({ ...uploads, learningRate: Float32Array.of(rate), teacherMomentum: Float32Array.of(1) }),
      );
      return { loss: outputs.loss[0], squares: outputs.squares[0] };
    });
    const start = yield* move(0);
    const fall = 0.01 * start.loss;
    // The optimiser adds the same gradient to its momentum times the one that it has seen already.
    const again = yield* move(fall / start.squares / (1 + MOMENTUM));
    assert.equal(again.loss, start.loss);
    const { loss } = yield* move(0);
    const share = (start.loss - loss) / fall;
    assert.ok(share > 0.8 && share < 1.2, `the loss fell by ${share} of what its gradient says`);
  }));

const CLASSES = 1000;

/** Classification by a ResNet-18 of full width. */
const classification = (pictures: number, size: number): TrainingStep => {
  const state = new StateBuilder();
  const network = student(state, { groups: 1, sync: singleProcess });
  const images = constant(numbers(pictures * size * size * 3), [pictures, size, size, 3]);
  const features = encoder(network, images, { arch: "resnet18", width: 64 });
  const [, side, , channels] = features.shape;
  const pooled = reshape(averagePool(features, { size: side, stride: side }), [pictures, channels]);
  const scores = linear(network, "fc", pooled, CLASSES);
  const classes = new Float32Array(pictures * CLASSES);
  for (let n = 0; n < pictures; n++) classes[n * CLASSES + n] = 1;
  const likelihoods = mul(logSoftmax(scores, 1), constant(classes, scores.shape));
  const loss = div(neg(sum(likelihoods)), pictures);

  const { gradients } = optimize({ state, loss, metrics: {} }, rateInputs().learningRate, {
    optimizer: "sgd",
    weightDecay: 0,
    momentum: MOMENTUM,
  });
  return { state, loss, slopes: [...gradients.values()] };
};

bench(
  "ResNet-18, forward, backward and SGD, 8×64²",
  { count: 8, of: "pictures" },
  Effect.gen(function* () {
    const step = classification(8, 64);
    yield* assertDescends(step, {});
    return runsOf(yield* compiled(step, false), { learningRate: Float32Array.of(0.01) });
  }),
);

bench(
  "SlotCon step of the preset demo, 8×96²",
  { count: 8, of: "pictures" },
  Effect.gen(function* () {
    const config = yield* configure("demo");
    const { batchSize, imageSize, minScale } = config;
    const packing = packingFor(imageSize, batchSize, 2 ** 27);
    const samples = Array.from({ length: batchSize }, (_, i) => {
      const picture = { width: 128, height: 128, rgb: drawScene(randomStream(1, i), 128).rgb };
      return { picture, draw: drawTwoCrops(randomStream(2, i), picture, { minScale }) };
    });
    const uploads = { ...packBatch(samples, packing) };

    const step = (centerMomentum: number): TrainingStep => {
      const views = {
        images: augment(
          input("pixels", [packing.capacity / 4], "u32"),
          input("views", [2 * batchSize, augmentationRowWords(packing)], "u32"),
          packing,
        ),
        coords: input("coords", [2 * batchSize, 4]),
        flips: input("flips", [2 * batchSize]),
      };
      const { state, loss, gradients } = slotConStep(views, rateInputs(), { ...config, centerMomentum });
      return { state, loss, slopes: [...gradients.values()] };
    };
    yield* assertDescends(step(1), uploads); // the loss stays the same as long as the centre and the teacher do
    return runsOf(yield* compiled(step(config.centerMomentum), false), {
      ...uploads,
      learningRate: Float32Array.of(0.01),
      teacherMomentum: Float32Array.of(config.teacherMomentum),
    });
  }),
);
