/**
 * What a network is built with. A network is a function from tensors to tensors that asks for its parameters by name;
 * asking also declares them, so a model is written once and says at the same time what its state is.
 */
import { addBias } from "../../ops/add_bias.ts";
import { batchMoments, batchNorm, batchNormByRunning, runningAfter } from "../../ops/batch_norm.ts";
import { type Shape, sizeOf } from "../../ops/graph/shape.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import type { Sync } from "../ranks/sync.ts";
import type { Init, StateBuilder, Storage } from "./state_builder.ts";

/** Where a network's parameters come from and how it normalises. */
export interface Network {
  readonly state: StateBuilder;
  /** What names start with, `encoder_q.` for example. */
  readonly prefix: string;
  /** Value of a parameter in this network: as declared, or the teacher's moving average. */
  readonly value: (declared: Tensor, name: string) => Tensor;
  /** `null` normalises by running statistics (evaluation). */
  readonly training: Training | null;
}

export interface Training {
  /** Groups of pictures (the views) that are normalised separately. */
  readonly groups: number;
  readonly sync: Sync;
}

export const within = (network: Network, name: string): Network => ({
  ...network,
  prefix: `${network.prefix}${name}.`,
});

/** A parameter by its name in the network. Biases and scales are 1-D. */
export const parameter = (
  network: Network,
  name: string,
  shape: Shape,
  storage: Storage,
  init: Init,
): Tensor => {
  const full = network.prefix + name;
  return network.value(network.state.declare(full, shape, storage, init), full);
};

/**
 * Batch norm `name` of x [..., C]: by the moments of each group of rows in training (the running statistics move on),
 * else by the running statistics. With `count` only the first rows are normalised. `scale` is the initial weight.
 */
export const normalized = (
  network: Network,
  name: string,
  x: Tensor,
  options: { count?: Tensor; scale?: number } = {},
) => {
  const C = x.shape[x.shape.length - 1];
  const at = within(network, name);
  const weight = parameter(at, "weight", [C], "same", { kind: "constant", value: options.scale ?? 1 });
  const bias = parameter(at, "bias", [C], "same", { kind: "constant", value: 0 });
  const running = network.state.declare(`${at.prefix}running`, [C], "running", {
    kind: "constant",
    value: 0,
  });
  if (network.training === null) return batchNormByRunning(x, weight, bias, network.state.latest(running));
  const { groups, sync } = network.training;
  const rows = reshape(x, [groups, sizeOf(x.shape) / C / groups, C]);
  const moments = sync.moments(batchMoments(rows, options.count));
  network.state.updates.set(running, runningAfter(network.state.latest(running), moments));
  return reshape(batchNorm(rows, weight, bias, moments, options.count), x.shape);
};

/** Fully connected layer `name` on the last axis of x; `pixelwise` keeps it as a 1×1 convolution in checkpoints. */
export const linear = (
  network: Network,
  name: string,
  x: Tensor,
  outputs: number,
  options: { pixelwise?: boolean; count?: Tensor } = {},
): Tensor => {
  const inputs = x.shape[x.shape.length - 1];
  const at = within(network, name);
  const init: Init = { kind: "normal", deviation: 0.02 }; // the published code cuts at ±2, where nothing is
  const weight = options.pixelwise
    ? reshape(parameter(at, "weight", [outputs, inputs, 1, 1], "conv", init), [inputs, outputs])
    : parameter(at, "weight", [outputs, inputs], "linear", init);
  const bias = parameter(at, "bias", [outputs], "same", { kind: "constant", value: 0 });
  return addBias(matmul(x, weight, options.count), bias, options.count);
};
