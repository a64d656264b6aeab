/** jax-js on WebGPU as a contender. */
import { type Case, CLASSES, MOMENTUM, numbers, RATE } from "./cases.ts";
import { type Contender, serve } from "./contender.ts";
import { initialWeights, type Layers, resnet18 } from "./resnet18.ts";

// deno-lint-ignore no-explicit-any -- imported by a name that type checking does not follow, see main.ts
type Any = any;
/** Counted: whoever is given a tensor uses it up, and `ref` is one more of it. */
type Tensor = Any;
type Tensors = Record<string, Tensor>;

const jax: Any = await import(Deno.args[0]);
const { numpy: np, lax, nn } = jax;
await jax.init("webgpu");
jax.defaultDevice("webgpu");

const tensor = (values: Float32Array, shape: readonly number[]): Tensor =>
  np.array(values).reshape([...shape]);
const noise = (shape: readonly number[], seed: number): Tensor => tensor(numbers(shape, seed), shape);

// Convolutions here are [N, C, H, W] with weights [O, C, KH, KW].
const channelsFirst = (x: Tensor): Tensor => np.transpose(x, [0, 3, 1, 2]);
const channelsLast = (x: Tensor): Tensor => np.transpose(x, [0, 2, 3, 1]);
const outputFirst = (w: Tensor): Tensor => np.transpose(w, [3, 2, 0, 1]);
const outputLast = (w: Tensor): Tensor => np.transpose(w, [2, 3, 1, 0]);

const convolution = (x: Tensor, w: Tensor, stride: number, pad: number, dilation = 1): Tensor =>
  lax.convGeneralDilated(x, w, [stride, stride], [[pad, pad], [pad, pad]], {
    rhsDilation: [dilation, dilation],
  });

/** scale and shift: [1, C, 1, 1]. */
const normalized = (x: Tensor, scale: Tensor, shift: Tensor): Tensor => {
  const over = { keepdims: true };
  const centred = np.subtract(x.ref, np.mean(x, [0, 2, 3], over));
  const variance = np.mean(np.square(centred.ref), [0, 2, 3], over);
  const deviation = np.sqrt(variance.add(1e-5));
  return centred.div(deviation).mul(scale).add(shift);
};

/** The work as a compiled function, what it takes, and how its result becomes channels-last. */
const workOf = (work: Exclude<Case, { kind: "ResNet-18 step" }>): [Any, Tensor[], (y: Tensor) => Tensor] => {
  switch (work.kind) {
    case "matmul": {
      const inputs = [1, 2].map((seed) => noise([work.size, work.size], seed));
      return [jax.jit((a: Tensor, b: Tensor) => np.matmul(a, b)), inputs, (y) => y];
    }
    case "batch norm": {
      const channels = [1, work.x[3], 1, 1];
      return [
        jax.jit(normalized),
        [
          channelsFirst(noise(work.x, 1)),
          tensor(numbers([work.x[3]], 2), channels),
          tensor(numbers([work.x[3]], 3), channels),
        ],
        channelsLast,
      ];
    }
    case "convolution":
    case "input gradient":
    case "weight gradient": {
      const x = channelsFirst(noise(work.x, 1)), w = outputFirst(noise(work.w, 2));
      const forward = (x: Tensor, w: Tensor) => convolution(x, w, work.stride, work.pad, work.dilation);
      if (work.kind === "convolution") return [jax.jit(forward), [x, w], channelsLast];
      const dy = channelsFirst(noise(work.y, 3));
      const product = (x: Tensor, w: Tensor, dy: Tensor) => np.sum(forward(x, w).mul(dy));
      return work.kind === "input gradient"
        ? [jax.jit(jax.grad(product, { argnums: 0 })), [x, w, dy], channelsLast]
        : [jax.jit(jax.grad(product, { argnums: 1 })), [x, w, dy], outputLast];
    }
    case "SlotCon step":
    case "segmentation step":
      throw new Error(`the ${work.kind} is not written for it`);
  }
};

/** A training step: parameters and velocities in, loss and both of the next step out. */
const stepOf = (shape: readonly number[]) => {
  const initial: Tensors = {};
  /** The network; at the first call it notes its parameters' initial values. */
  const layersWith = (parameters: Tensors | null): Layers<Tensor> => {
    const parameter = (name: string, make: () => Tensor): Tensor =>
      (parameters === null ? initial[name] = make() : parameters[name]).ref;
    return {
      convolution: (x, name, shape, stride) => {
        const w = parameter(`${name}.w`, () => outputFirst(tensor(initialWeights(name, shape), shape)));
        return convolution(x, w, stride, (shape[0] - 1) / 2);
      },
      normalization: (x, name, channels) => {
        const scale = parameter(`${name}.scale`, () => np.ones([1, channels, 1, 1]));
        const shift = parameter(`${name}.shift`, () => np.zeros([1, channels, 1, 1]));
        return normalized(x, scale, shift);
      },
      // What is pooled comes from a ReLU, so zeros never win over it.
      maxPool: (x) => {
        const padded = np.pad(x, [[0, 0], [0, 0], [1, 1], [1, 1]]);
        return lax.reduceWindow(padded, np.max, [3, 3], [2, 2]);
      },
      meanPool: (x) => np.mean(x, [2, 3]),
      linear: (x, name, inputs, outputs) => {
        const make = () => tensor(initialWeights(name, [inputs, outputs]), [inputs, outputs]);
        return np.matmul(x, parameter(name, make));
      },
      relu: nn.relu,
      add: np.add,
      again: (x) => x.ref,
    };
  };
  const images = channelsFirst(noise(shape, 1));
  const classes = nn.oneHot(np.arange(shape[0]), CLASSES);
  resnet18(layersWith(null), images.ref).dispose();

  const lossOf = (parameters: Tensors, images: Tensor, classes: Tensor) => {
    const scores = resnet18(layersWith(parameters), images);
    jax.tree.dispose(parameters);
    return np.sum(nn.logSoftmax(scores).mul(classes)).mul(-1 / shape[0]);
  };
  const step = jax.jit((parameters: Tensors, velocities: Tensors, images: Tensor, classes: Tensor) => {
    const own = Object.fromEntries(Object.entries(parameters).map(([name, x]) => [name, x.ref]));
    const [loss, slopes] = jax.valueAndGrad(lossOf)(own, images, classes);
    const nextVelocities: Tensors = {}, next: Tensors = {};
    for (const name in parameters) {
      const velocity = velocities[name].mul(MOMENTUM).add(slopes[name]);
      nextVelocities[name] = velocity.ref;
      next[name] = parameters[name].sub(velocity.mul(RATE));
    }
    return [loss, next, nextVelocities];
  });
  return { step, initial, images, classes };
};

const contender: Contender = async (work) => {
  if (work.kind === "ResNet-18 step") {
    const { step, initial, images, classes } = stepOf(work.images);
    let parameters = initial;
    let velocities: Tensors = {};
    for (const name in initial) velocities[name] = np.zeros(initial[name].shape);
    const once = async () => {
      const [loss, next, nextVelocities] = step(parameters, velocities, images.ref, classes.ref);
      [parameters, velocities] = [next, nextVelocities];
      await jax.blockUntilReady([next, nextVelocities]);
      return (await loss.data())[0] as number;
    };
    const answer = [await once(), await once(), await once()];
    return {
      answer,
      run: async (count) => {
        for (let i = 0; i < count; i++) await once();
      },
      end: () =>
        [...Object.values(parameters), ...Object.values(velocities), images, classes].forEach((x) =>
          x.dispose()
        ),
    };
  }
  const [f, inputs, asAnswer] = workOf(work);
  const once = () => f(...inputs.map((x) => x.ref));
  return {
    answer: await asAnswer(once()).data(),
    run: async (count) => {
      // Work starts when somebody waits for it, and is cancelled if its result is given back before.
      const results = Array.from({ length: count }, once);
      await jax.blockUntilReady(results);
      for (const result of results) result.dispose();
    },
    end: () => inputs.forEach((x) => x.dispose()),
  };
};

await serve(contender);
