/** The state that a graph declares: parameters, averages of them, running statistics and buffers. */
import type { Shape } from "../../ops/graph/shape.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";

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
