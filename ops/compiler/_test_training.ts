/** A small training step with every kind of kernel, for tests of the compiler. */
import { add, mul, relu, sub } from "../arithmetic.ts";
import { gradients } from "../autodiff.ts";
import { batchMoments, batchNorm, combinedMoments, type Moments } from "../batch_norm.ts";
import { allGather, allReduceSum } from "../collective.ts";
import { conv2d } from "../conv2d.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { input, reshape, type Tensor } from "../graph/tensor.ts";
import { matmul } from "../matmul.ts";
import { maxPool } from "../max_pool.ts";
import { sum } from "../reduce.ts";
import type { Graph } from "./graph.ts";

export const CPU: AdapterTraits = {
  ...{ cpu: true, maxStorageBuffers: 16, maxBinding: 2 ** 27, shaderF16: true, minSubgroupSize: 0 },
};
export const GPU: AdapterTraits = { ...CPU, cpu: false, maxBinding: 2 ** 31 - 4 };

/** Whether an input of the training step is state: all but the images. */
export const isState = (name: string): boolean => name !== "images";

/**
 * A step of SGD with momentum: blocks of convolution, batch norm and ReLU, then max pooling and a linear layer. Of
 * several ranks, with statistics and gradients of all.
 */
export const training = (
  { blocks = 3, world = 1, ...options }:
    & { readonly blocks?: number; readonly world?: number }
    & Partial<Graph> = {},
): Graph => {
  const weights: Tensor[] = [];
  const weight = (...shape: readonly number[]) => {
    weights.push(input(`weight ${weights.length}`, shape));
    return weights[weights.length - 1];
  };
  const acrossRanks = ({ values, rows }: Moments): Moments =>
    world === 1 ? { values, rows } : {
      ...combinedMoments(allGather(values, world), allGather(rows, world)),
      total: (x) => allReduceSum(x),
    };
  const images = input("images", [4, 16, 16, 8]);
  let x = images;
  for (let i = 0; i < blocks; i++) {
    const convolved = conv2d(x, weight(3, 3, 8, 8), { pad: 1 });
    const rows = reshape(convolved, [2, sizeOf(convolved.shape) / 16, 8]);
    const normal = batchNorm(rows, weight(8), weight(8), acrossRanks(batchMoments(rows)));
    x = add(relu(reshape(normal, x.shape)), x);
  }
  const pooled = maxPool(x, { size: 2, stride: 2, pad: 0 });
  const scores = matmul(reshape(pooled, [16, sizeOf(pooled.shape) / 16]), weight(128, 10));
  const loss = sum(mul(scores, scores));
  const updates = new Map<Tensor, Tensor>();
  gradients(loss, weights).forEach((local, i) => {
    const gradient = world === 1 ? local : allReduceSum(local, { overlappable: true });
    const velocity = input(`velocity ${i}`, weights[i].shape);
    const next = add(mul(0.9, velocity), gradient);
    updates.set(velocity, next).set(weights[i], sub(weights[i], mul(0.1, next)));
  });
  return { label: "training", updates, outputs: { loss }, ...options };
};
