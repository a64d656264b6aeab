/** This project as a contender, on the WebGPU that its argument names: `native` or `dawn`. */
import { Effect, Exit, Layer, ManagedRuntime, Scope } from "effect";
import { add, div, mul, neg, relu } from "../../ops/arithmetic.ts";
import { gradients } from "../../ops/autodiff.ts";
import { averagePool } from "../../ops/average_pool.ts";
import { batchMoments, batchNorm } from "../../ops/batch_norm.ts";
import { conv2d } from "../../ops/conv2d.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { constant, input, inputName, reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import { maxPool } from "../../ops/max_pool.ts";
import { sum } from "../../ops/reduce.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import { Gpu, STORAGE } from "../../ops/runtime/gpu.ts";
import { compile, evaluate, type Program, type Upload } from "../../ops/runtime/program.ts";
import { logSoftmax } from "../../ops/softmax.ts";
import { sgd } from "../../pipeline/optim/sgd.ts";
import { layerTuned } from "../../pipeline/run/tuned_kernels.ts";
import { pulledBack } from "../_pulled_back.ts";
import { sampled } from "../_sample.ts";
import { runsOf } from "../_timing.ts";
import { type Case, CLASSES, MOMENTUM, numbers, RATE } from "./cases.ts";
import { type Contender, serve } from "./contender.ts";
import { initialWeights, type Layers, resnet18 } from "./resnet18.ts";
import { segmentation } from "./segmentation.ts";
import { slotCon } from "./slotcon.ts";

const runtime = ManagedRuntime.make(Layer.mergeAll(layers[Deno.args[0] as keyof typeof layers], layerTuned));

const noise = (shape: readonly number[], seed: number) => constant(numbers(shape, seed), shape);

/** What the case asks for. */
const resultOf = (work: Exclude<Case, { kind: `${string} step` }>): Tensor => {
  switch (work.kind) {
    case "matmul": {
      const shape = [work.size, work.size];
      return matmul(noise(shape, 1), noise(shape, 2));
    }
    case "convolution":
    case "input gradient":
    case "weight gradient": {
      const { stride, dilation, pad } = work;
      const y = conv2d(noise(work.x, 1), noise(work.w, 2), { stride, dilation, pad });
      if (work.kind === "convolution") return y;
      return pulledBack(y, noise(work.y, 3))[work.kind === "input gradient" ? 0 : 1]!;
    }
    case "batch norm":
      return normalized(noise(work.x, 1), noise([work.x[3]], 2), noise([work.x[3]], 3));
  }
};

const normalized = (x: Tensor, weight: Tensor, bias: Tensor): Tensor => {
  const C = x.shape[3];
  const rows = reshape(x, [1, sizeOf(x.shape) / C, C]);
  return reshape(batchNorm(rows, weight, bias, batchMoments(rows)), x.shape);
};

/** Classification by a ResNet-18: the graph of a training step, and the initial values of its state. */
const classificationStep = (shape: readonly number[]) => {
  const initial = new Map<Tensor, Float32Array>();
  const parameter = (name: string, shape: readonly number[], values: Float32Array) => {
    const x = input(name, shape);
    initial.set(x, values);
    return x;
  };
  const layers: Layers<Tensor> = {
    convolution: (x, name, shape, stride) =>
      conv2d(x, parameter(`${name}.w`, shape, initialWeights(name, shape)), {
        stride,
        pad: (shape[0] - 1) / 2,
      }),
    normalization: (x, name, channels) =>
      normalized(
        x,
        parameter(`${name}.scale`, [channels], new Float32Array(channels).fill(1)),
        parameter(`${name}.shift`, [channels], new Float32Array(channels)),
      ),
    maxPool: (x) => maxPool(x, { size: 3, stride: 2, pad: 1 }),
    meanPool: (x) =>
      reshape(averagePool(x, { size: x.shape[1], stride: x.shape[1] }), [x.shape[0], x.shape[3]]),
    linear: (x, name, inputs, outputs) =>
      matmul(x, parameter(name, [inputs, outputs], initialWeights(name, [inputs, outputs]))),
    relu,
    add,
    again: (x) => x,
  };
  const scores = resnet18(layers, noise(shape, 1));
  const classes = new Float32Array(shape[0] * CLASSES);
  for (let n = 0; n < shape[0]; n++) classes[n * CLASSES + n] = 1;
  const loss = div(neg(sum(mul(logSoftmax(scores, 1), constant(classes, scores.shape)))), shape[0]);

  const learned = [...initial.keys()];
  const slopes = gradients(loss, learned);
  const updates = new Map<Tensor, Tensor>();
  learned.forEach((x, i) => {
    const name = inputName(x);
    const velocity = parameter(`velocity of ${name}`, x.shape, new Float32Array(sizeOf(x.shape)));
    const options = { rate: constant(RATE), weightDecay: 0, momentum: MOMENTUM };
    const next = sgd(x, slopes[i], () => velocity, options);
    updates.set(x, next.parameter).set(velocity, next.buffers.get(velocity)!);
  });
  return { initial, graph: { label: "the step", updates, outputs: { loss }, stageOf: () => "step" } };
};

const classification = Effect.fnUntraced(function* (shape: readonly number[]) {
  const gpu = yield* Gpu;
  const { initial, graph } = classificationStep(shape);
  const buffers = new Map<string, GPUBuffer>();
  for (const [x, values] of initial) {
    const name = inputName(x);
    const buffer = yield* gpu.buffer(name, values.byteLength, STORAGE);
    gpu.device.queue.writeBuffer(buffer, 0, values as Float32Array<ArrayBuffer>);
    buffers.set(name, buffer);
  }
  return { program: yield* compile(graph, buffers), uploads: {} };
});

interface Training {
  /** A step; its outputs are the losses. */
  readonly program: Program;
  readonly uploads: Readonly<Record<string, Upload>>;
}

/** Runs the first three steps. */
const trained = Effect.fnUntraced(function* ({ program, uploads }: Training) {
  const answer: number[] = [];
  for (let step = 0; step < 3; step++) {
    const losses = yield* Effect.flatten(program.run(uploads));
    for (const [loss] of Object.values(losses)) answer.push(loss);
  }
  const use = () => {
    const seconds = program.stageSeconds();
    return { device: seconds && 1000 * seconds.step, planned: program.plan.total };
  };
  return { answer, runs: runsOf(program, uploads), use };
});

const prepare = Effect.fnUntraced(function* (work: Case) {
  if (work.kind === "ResNet-18 step") return yield* trained(yield* classification(work.images));
  if (work.kind === "SlotCon step") return yield* trained(yield* slotCon(work.work));
  if (work.kind === "segmentation step") return yield* trained(yield* segmentation(work.work));
  const result = resultOf(work);
  const answer: ArrayLike<number> = yield* evaluate(result);
  const program = yield* compile({ label: work.name, outputs: { sample: sampled(result) } });
  return { answer, runs: runsOf(program), use: () => {} };
});

const contender: Contender = async (work) => {
  const scope = Scope.makeUnsafe();
  const { answer, runs, use } = await runtime.runPromise(Scope.provide(prepare(work), scope));
  return {
    answer,
    run: (count) => Effect.runPromise(Effect.map(runs(count), use)),
    end: () => Effect.runFork(Scope.close(scope, Exit.void)),
  };
};

await serve(contender);
