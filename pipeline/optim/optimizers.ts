/** The optimisers that `--optimizer` chooses from. */
import { lars, TRUST } from "./lars.ts";
import type { Optimizer } from "./optimizer.ts";
import { sgd } from "./sgd.ts";

/** The name of a built-in optimiser. */
export type OptimizerName = "lars" | "sgd";

interface BuiltIn {
  readonly optimizer: Optimizer;
  /** How checkpoints of the published code store it: the name of its buffer, and its own entries of `param_groups`. */
  readonly published: {
    readonly buffer: string;
    readonly options: Readonly<Record<string, number | boolean | null>>;
  };
}

/** The built-in optimisers by name, a row each. */
export const OPTIMIZERS: Readonly<Record<OptimizerName, BuiltIn>> = {
  lars: {
    optimizer: lars,
    published: {
      buffer: "mu",
      options: { eta: TRUST, weight_decay_filter: null, lars_adaptation_filter: null },
    },
  },
  sgd: {
    optimizer: sgd,
    published: { buffer: "momentum_buffer", options: { dampening: 0, nesterov: false } },
  },
};

/** All names of built-in optimisers. */
export const optimizerNames: readonly OptimizerName[] = Object.keys(OPTIMIZERS) as OptimizerName[];

/** Is this the name of a built-in optimiser? */
export const isBuiltIn = (name: string): name is OptimizerName => Object.hasOwn(OPTIMIZERS, name);
