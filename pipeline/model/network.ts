/**
 * The building blocks of networks. A network is a function from tensors to tensors that asks for its parameters by name;
 * asking also declares them, so a model is written once and says at the same time what its state is.
 */
import { addBias } from "../../ops/add_bias.ts";
import { batchMoments, batchNorm, batchNormByRunning, runningAfter } from "../../ops/batch_norm.ts";
import { conv2d } from "../../ops/conv2d.ts";
import { type Shape, sizeOf } from "../../ops/graph/shape.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import type { Sync } from "../ranks/sync.ts";
import type { Declaration, Init, StateBuilder, Storage } from "./state_builder.ts";

/** Where a network's parameters come from and how it normalises. */
export interface Network {
  /** Declares the parameters and the running statistics. */
  readonly state: StateBuilder;
  /** The beginning of the names of its parameters and statistics, `encoder_q.` for example. */
  readonly prefix: string;
  /**
   * Declares the parameter of this full name in the role that it has in this network, and gives the value that the
   * network computes with: the parameter itself, or a teacher's moving average.
   */
  readonly parameter: (name: string, declaration: Omit<Declaration, "role">) => Tensor;
  /** `null` normalises by running statistics (evaluation). */
  readonly training: Training | null;
}

/** How a network in training normalises. */
export interface Training {
  /** Groups of images (the views) that are normalised separately; they follow each other in the batch. */
  readonly groups: number;
  /** Combines the statistics of all ranks. */
  readonly sync: Sync;
}

/** The part `name` of a network: its parameters' names begin with the network's prefix, `name` and a dot. */
export const within = (network: Network, name: string): Network => ({
  ...network,
  prefix: `${network.prefix}${name}.`,
});

/**
 * The value of a parameter by its name in the network, in the device's layout; `shape` is that in checkpoints. Throws a
 * DeclarationError where the network has declared it otherwise.
 */
export const parameter = (
  network: Network,
  name: string,
  shape: Shape,
  storage: Storage,
  init: Init,
): Tensor => network.parameter(network.prefix + name, { shape, storage, init });

/**
 * Batch norm `name` of x [..., C], of the shape of x: by the moments of each group of rows in training, which also moves
 * the running statistics, else by the running statistics. With `count` ([1], u32) only the first rows are normalised.
 * `scale` is the initial weight.
 */
export const normalized = (
  network: Network,
  name: string,
  x: Tensor,
  options: { count?: Tensor; scale?: number } = {},
): Tensor => {
  const C = x.shape[x.shape.length - 1];
  const at = within(network, name);
  const weight = parameter(at, "weight", [C], "same", { kind: "constant", value: options.scale ?? 1 });
  const bias = parameter(at, "bias", [C], "same", { kind: "constant", value: 0 });
  const running = network.state.declare(`${at.prefix}running`, {
    role: "statistics",
    shape: [C],
    storage: "running",
    init: { kind: "constant", value: 0 },
  });
  if (network.training === null) return batchNormByRunning(x, weight, bias, network.state.latest(running));
  const { groups, sync } = network.training;
  const rows = reshape(x, [groups, sizeOf(x.shape) / C / groups, C]);
  const moments = sync.moments(batchMoments(rows, options.count));
  network.state.updates.set(running, runningAfter(network.state.latest(running), moments));
  return reshape(batchNorm(rows, weight, bias, moments, options.count), x.shape);
};

/**
 * Fully connected layer `name` on the last axis of x: [..., C] to [..., outputs]. `pixelwise` stores its weight as a 1×1
 * convolution in checkpoints. With `count` ([1], u32) only the first rows are computed.
 */
export const linear = (
  network: Network,
  name: string,
  x: Tensor,
  outputs: number,
  options: { pixelwise?: boolean; count?: Tensor } = {},
): Tensor => {
  const inputs = x.shape[x.shape.length - 1];
  const at = within(network, name);
  const init: Init = { kind: "normal", deviation: 0.02 }; // the published code truncates at ±2, 100 deviations away
  const weight = options.pixelwise
    ? reshape(parameter(at, "weight", [outputs, inputs, 1, 1], "conv", init), [inputs, outputs])
    : parameter(at, "weight", [outputs, inputs], "linear", init);
  const bias = parameter(at, "bias", [outputs], "same", { kind: "constant", value: 0 });
  return addBias(matmul(x, weight, options.count), bias, options.count);
};

/** How a convolution goes over its input. */
export interface ConvolutionOptions {
  /** Pixels from one place of the kernel to the next; 1 if not given. */
  readonly stride?: number;
  /** Pixels from one tap to the next; 1 if not given. */
  readonly dilation?: number;
  /** Groups of channels that are convolved apart; 1 if not given. */
  readonly groups?: number;
}

/** Convolution `name`, of an odd `size`, without bias, which keeps height and width up to its stride. */
export const convolution = (
  network: Network,
  name: string,
  x: Tensor,
  channels: number,
  size: number,
  { stride = 1, dilation = 1, groups = 1 }: ConvolutionOptions = {},
): Tensor => {
  const weight = parameter(network, `${name}.weight`, [channels, x.shape[3] / groups, size, size], "conv", {
    kind: "normal",
    deviation: Math.sqrt(2 / (size * size * channels)),
  });
  return conv2d(x, weight, { stride, pad: dilation * (size - 1) / 2, dilation, groups });
};
