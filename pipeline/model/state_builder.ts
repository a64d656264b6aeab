/** The state that a graph declares: parameters, averages of them, running statistics and buffers. */
import { Data } from "effect";
import type { Shape } from "../../ops/graph/shape.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";

/** Initial values of a tensor: normal numbers of a standard deviation, or a constant. */
export type Init =
  | { readonly kind: "normal"; readonly deviation: number }
  | { readonly kind: "constant"; readonly value: number };

/**
 * The layout of a checkpoint's tensor on the device.
 * `conv`: [O, I, KH, KW] becomes [KH, KW, I, O]; `linear`: [O, I] becomes [I, O]; `same`: unchanged;
 * `running`: mean, variance and number of batches of a batch norm become the rows of [3, C].
 */
export type Storage = "conv" | "linear" | "same" | "running";

/**
 * What a tensor of the state is to a training step.
 * `trained`: a parameter, which an optimiser moves along the gradient of the objective; `averageOf`: a moving average of
 * the tensor of that name, which begins as a copy of it; `statistics`: running statistics of a batch norm; `buffer`: all
 * else that a step keeps, such as the centre, the optimiser's buffers or the loss scale.
 */
export type Role = "trained" | "statistics" | "buffer" | { readonly averageOf: string };

/** What a tensor of the state is declared as. */
export interface Declaration {
  /** What a training step does with it. */
  readonly role: Role;
  /** Shape in checkpoints. */
  readonly shape: Shape;
  /** Layout on the device. */
  readonly storage: Storage;
  /** Initial values; running statistics have their own, mean 0 and variance 1. */
  readonly init: Init;
}

/** A tensor of the state. */
export interface Declared extends Declaration {
  /** Name in checkpoints; running statistics have three there, see `statisticsNames`. */
  readonly name: string;
  /** The input of the graph, in the device's layout. */
  readonly tensor: Tensor;
}

/** Raised while a graph is being built, where its declarations of one tensor contradict each other. */
export class DeclarationError extends Data.Error<{
  readonly subject: string; // the tensor's name
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "DeclarationError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Subject and reason as a sentence. */
  override get message(): string {
    return `Cannot declare ${this.subject}: ${this.reason}`;
  }
}

/** The state that a graph declares, in the order of the first declarations, with its next values. */
export class StateBuilder {
  /** Every tensor of the state by its name. */
  readonly declared: Map<string, Declared> = new Map();
  /** The next value of each tensor of the state that a step changes. */
  readonly updates: Map<Tensor, Tensor> = new Map();
  /** Name of the optimiser that moves the trained tensors; null as long as none does. */
  optimizer: string | null = null;

  /**
   * The tensor of this name, declared at the first call. Throws a DeclarationError where a later call declares it
   * otherwise, and where an average follows a tensor that is not declared or of another shape or storage.
   */
  declare(name: string, { role, shape, storage, init }: Declaration): Tensor {
    const declaration = { role, shape, storage, init };
    const known = this.declared.get(name);
    if (known !== undefined) {
      const found = differences(known, declaration, ["role", "shape", "storage", "init"]);
      if (found !== "") refuse(name, `it is declared already, with ${found}`);
      return known.tensor;
    }
    if (typeof role === "object") this.#expectLike(name, role.averageOf, declaration);
    const tensor = input(name, deviceShape(shape, storage));
    this.declared.set(name, { name, tensor, ...declaration });
    return tensor;
  }

  /** The value of a tensor of the state so far in this step: its next value where that is already known. */
  latest(tensor: Tensor): Tensor {
    return this.updates.get(tensor) ?? tensor;
  }

  #expectLike(name: string, followed: string, declaration: Declaration): void {
    const known = this.declared.get(followed);
    if (known === undefined) {
      return refuse(name, `it is an average of ${followed}, which is not declared yet`);
    }
    const found = differences(known, declaration, ["shape", "storage"]);
    if (found !== "") refuse(name, `it is an average of ${followed}, which has ${found}`);
  }
}

const refuse = (subject: string, reason: string): never => {
  throw new DeclarationError({ subject, reason });
};

/** The parts in which two declarations differ, "shape [3], not [4]; role trained, not buffer", or nothing. */
const differences = (
  known: Declaration,
  other: Declaration,
  parts: readonly (keyof Declaration)[],
): string => {
  const [before, now] = [inWords(known), inWords(other)];
  return parts.filter((part) => before[part] !== now[part])
    .map((part) => `${part} ${before[part]}, not ${now[part]}`).join("; ");
};

const inWords = ({ role, shape, storage, init }: Declaration): Record<keyof Declaration, string> => ({
  role: typeof role === "object" ? `average of ${role.averageOf}` : role,
  shape: `[${shape.join(", ")}]`,
  storage,
  init: init.kind === "normal" ? `normal of deviation ${init.deviation}` : `constant ${init.value}`,
});

const deviceShape = (shape: Shape, storage: Storage): Shape => {
  if (storage === "conv") return [shape[2], shape[3], shape[1], shape[0]];
  if (storage === "linear") return [shape[1], shape[0]];
  return storage === "running" ? [3, shape[0]] : shape;
};
