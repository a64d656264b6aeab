/** TensorFlow.js on WebGPU as a contender. */
import { type Case, CLASSES, MOMENTUM, numbers, RATE } from "./cases.ts";
import { type Contender, serve } from "./contender.ts";
import { initialWeights, type Layers, resnet18 } from "./resnet18.ts";

// It takes Deno for Node.js unless there is a document.
Object.assign(globalThis, {
  window: globalThis,
  document: { createElement: () => ({ getContext: () => null }) },
});
const tf = await import(Deno.args[0]); // a bundle, see main.ts
await tf.setBackend("webgpu");

// deno-lint-ignore no-explicit-any -- the bundle has no types
type Tensor = any;

const noise = (shape: readonly number[], seed: number): Tensor => tf.tensor(numbers(shape, seed), shape);

/** The work as a function of tensors that are made once. */
const workOf = (work: Exclude<Case, { kind: "ResNet-18 step" }>): () => Tensor => {
  switch (work.kind) {
    case "matmul": {
      const [a, b] = [1, 2].map((seed) => noise([work.size, work.size], seed));
      return () => tf.matMul(a, b);
    }
    case "batch norm": {
      const x = noise(work.x, 1), scale = noise([work.x[3]], 2), shift = noise([work.x[3]], 3);
      return () => normalized(x, scale, shift);
    }
    case "convolution":
    case "input gradient":
    case "weight gradient": {
      const x = noise(work.x, 1), filter = noise(work.w, 2);
      const { stride, dilation, pad } = work;
      if (work.kind === "convolution") {
        return () => tf.conv2d(x, filter, stride, pad, "NHWC", dilation);
      }
      if (dilation > 1) throw new Error("dilated convolutions have no gradients");
      const dy = noise(work.y, 3);
      const attributes = { strides: [stride, stride], pad, dataFormat: "NHWC", dimRoundingMode: undefined };
      return work.kind === "input gradient"
        ? () =>
          tf.engine().runKernel("Conv2DBackpropInput", { dy, filter }, { ...attributes, inputShape: work.x })
        : () =>
          tf.engine().runKernel("Conv2DBackpropFilter", { x, dy }, { ...attributes, filterShape: work.w });
    }
    case "SlotCon step":
    case "segmentation step":
      throw new Error(`the ${work.kind} is not written for it`);
  }
};

const normalized = (x: Tensor, scale: Tensor, shift: Tensor): Tensor => {
  const { mean, variance } = tf.moments(x, [0, 1, 2]);
  return tf.batchNorm(x, mean, variance, shift, scale, 1e-5);
};

/** A training step as a function that returns the loss. */
const stepOf = (shape: readonly number[]): () => Tensor => {
  const parameters = new Map<string, Tensor>();
  const parameter = (name: string, make: () => Tensor): Tensor => {
    const known = parameters.get(name) ?? tf.variable(make());
    parameters.set(name, known);
    return known;
  };
  const layers: Layers<Tensor> = {
    convolution: (x, name, shape, stride) => {
      const weights = parameter(name, () => tf.tensor(initialWeights(name, shape), shape));
      return tf.conv2d(x, weights, stride, (shape[0] - 1) / 2);
    },
    normalization: (x, name, channels) =>
      normalized(
        x,
        parameter(`${name}.scale`, () => tf.ones([channels])),
        parameter(`${name}.shift`, () => tf.zeros([channels])),
      ),
    maxPool: (x) => tf.maxPool(x, 3, 2, 1),
    meanPool: (x) => tf.mean(x, [1, 2]),
    linear: (x, name, inputs, outputs) =>
      tf.matMul(
        x,
        parameter(name, () => tf.tensor(initialWeights(name, [inputs, outputs]), [inputs, outputs])),
      ),
    relu: tf.relu,
    add: tf.add,
    again: (x) => x,
  };
  const images = noise(shape, 1);
  const classes = tf.oneHot(tf.range(0, shape[0], 1, "int32"), CLASSES);
  tf.tidy(() => void resnet18(layers, images)); // makes the variables
  const optimizer = tf.train.momentum(RATE, MOMENTUM);
  return () =>
    optimizer.minimize(() => tf.losses.softmaxCrossEntropy(classes, resnet18(layers, images)), true);
};

const contender: Contender = async (work) => {
  tf.engine().startScope();
  const once = work.kind === "ResNet-18 step" ? stepOf(work.images) : workOf(work);
  const answer: number[] = [];
  for (let i = 0; i < (work.kind === "ResNet-18 step" ? 3 : 1); i++) {
    const result = once();
    for (const value of await result.data()) answer.push(value);
    result.dispose();
  }
  return {
    answer,
    run: async (count) => {
      for (let i = 1; i < count; i++) tf.tidy(() => void once());
      const last = tf.tidy(() => tf.slice(tf.reshape(once(), [-1]), 0, 1));
      await last.data(); // everything before it is done by then
      last.dispose();
    },
    end: () => {
      tf.engine().endScope();
      tf.disposeVariables();
    },
  };
};

await serve(contender);
