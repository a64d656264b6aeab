/** A ResNet-18 (He et al. 2015), written once for the tensors of every contender. */
import { CLASSES, numbers, seedOf, type Shape4 } from "./cases.ts";

/** What a contender gives; `name` says which parameters a layer has. */
export interface Layers<T> {
  /** Weights [KH, KW, C, O], padded by (KH − 1) / 2. */
  readonly convolution: (x: T, name: string, shape: Shape4, stride: number) => T;
  /** By the batch's own statistics; weights and biases [channels]. */
  readonly normalization: (x: T, name: string, channels: number) => T;
  /** Windows of 3×3, padded by 1, every second one. */
  readonly maxPool: (x: T) => T;
  /** Mean over the pixels, [N, C]. */
  readonly meanPool: (x: T) => T;
  /** Weights [C, CLASSES]. */
  readonly linear: (x: T, name: string, inputs: number, outputs: number) => T;
  readonly relu: (x: T) => T;
  readonly add: (x: T, y: T) => T;
  /** The same once more, where tensors are counted. */
  readonly again: (x: T) => T;
}

/** Pictures to scores [N, CLASSES]. */
export const resnet18 = <T>(layers: Layers<T>, images: T): T => {
  const { convolution, normalization, relu, add, again } = layers;
  let x = convolution(images, "stem", [7, 7, 3, 64], 2);
  x = layers.maxPool(relu(normalization(x, "stem", 64)));
  let inputs = 64;
  for (const [stage, channels] of [64, 128, 256, 512].entries()) {
    for (const block of [0, 1]) {
      const at = `${stage}.${block}`, stride = stage > 0 && block === 0 ? 2 : 1;
      let y = convolution(again(x), `${at}.0`, [3, 3, inputs, channels], stride);
      y = relu(normalization(y, `${at}.0`, channels));
      y = normalization(convolution(y, `${at}.1`, [3, 3, channels, channels], 1), `${at}.1`, channels);
      if (inputs !== channels) {
        const down = convolution(x, `${at}.down`, [1, 1, inputs, channels], stride);
        x = normalization(down, `${at}.down`, channels);
      }
      x = relu(add(x, y));
      inputs = channels;
    }
  }
  return layers.linear(layers.meanPool(x), "head", 512, CLASSES);
};

/** Where the training of every contender starts: noise of He's variance for weights. */
export const initialWeights = (name: string, shape: readonly number[]): Float32Array => {
  const fanOut = shape.length === 4 ? shape[0] * shape[1] * shape[3] : shape[1];
  return numbers(shape, seedOf(name), Math.sqrt(6 / fanOut));
};
