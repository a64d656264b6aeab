/**
 * What a network is built with. A network is a function from tensors to tensors that asks for its parameters by name;
 * asking also declares them, so a model is written once and says at the same time what its state is.
 */
import { batchMoments, batchNorm, batchNormByRunning, runningAfter } from "../../ops/batch_norm.ts";
import { input, reshape, type Shape, sizeOf, type Tensor } from "../../ops/tensor.ts";
import { addBias } from "../../ops/add_bias.ts";
import { matmul } from "../../ops/matmul.ts";
import type { Sync } from "../sync.ts";

/** How a parameter starts: with normal numbers of a standard deviation, or constant. */
export type Init =
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "constant"; readonly value: number };

/**
 * How a tensor of a checkpoint lies on the device.
 * `conv`: [O, I, KH, KW] as [KH, KW, I, O]; `linear`: [O, I] as [I, O]; `same`: unchanged;
 * `running`: mean, variance and number of batches of a batch norm as the rows of [3, C].
 */
export type Storage = "conv" | "linear" | "same" | "running";

export interface Declared {
  readonly name: string;
  /** The input of the graph, shaped as on the device. */
  readonly tensor: Tensor;
  /** Shape in checkpoints. */
  readonly shape: Shape;
  readonly storage: Storage;
  readonly init: Init;
}

/** The state that a graph declares, in the order in which its networks ask for it, with its next values. */
export class StateBuilder {
  readonly declared = new Map<string, Declared>();
  readonly updates = new Map<Tensor, Tensor>();

  /** The state of this name, declared at the first call. */
  declare(name: string, shape: Shape, storage: Storage, init: Init): Tensor {
    const known = this.declared.get(name);
    if (known !== undefined) return known.tensor;
    const tensor = input(name, deviceShape(shape, storage));
    this.declared.set(name, { name, tensor, shape, storage, init });
    return tensor;
  }

  /** What the state is now: the next value where one is already known. */
  latest(tensor: Tensor): Tensor {
    return this.updates.get(tensor) ?? tensor;
  }
}

const deviceShape = (shape: Shape, storage: Storage): Shape => {
  if (storage === "conv") return [shape[2], shape[3], shape[1], shape[0]];
  if (storage === "linear") return [shape[1], shape[0]];
  return storage === "running" ? [3, shape[0]] : shape;
};

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
