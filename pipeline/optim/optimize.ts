/** From an objective to a training step: gradients, loss scaling, and the optimiser's updates. */
import { Data } from "effect";
import { add, mul, sqrt } from "../../ops/arithmetic.ts";
import { gradientsWhereReached } from "../../ops/autodiff.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { nonFinite } from "../../ops/non_finite.ts";
import { totals } from "../../ops/reduce.ts";
import { slice } from "../../ops/slice.ts";
import type { Declared, StateBuilder } from "../model/state_builder.ts";
import { singleProcess, type Sync } from "../ranks/sync.ts";
import { lossScale } from "./loss_scale.ts";
import type { BufferOf, Optimizer } from "./optimizer.ts";
import { type OptimizerName, optimizerNames, OPTIMIZERS } from "./optimizers.ts";

/** A loss to be minimised, with the state that it depends on. */
export interface Objective {
  /** The state, with the next values of what moves by itself, such as averages and statistics. */
  readonly state: StateBuilder;
  /** A scalar []. */
  readonly loss: Tensor;
  /** Small tensors that every step reports: means over ranks. */
  readonly metrics: Readonly<Record<string, Tensor>>;
}

/** How an objective is minimised. */
export interface OptimizeOptions {
  /** A built-in optimiser by its name, or any function. */
  readonly optimizer: OptimizerName | Optimizer;
  /** Given to the optimiser. */
  readonly weightDecay: number;
  /** Given to the optimiser. */
  readonly momentum: number;
  /** f16: activations and their gradients in half precision, with loss scaling; f32 if not given. */
  readonly precision?: "f32" | "f16";
  /** What this process exchanges with other ranks; nothing if not given. */
  readonly sync?: Sync;
}

/** An objective whose state has its next values, with all else that the objective has. */
export type TrainingStep<O extends Objective = Objective> = O & {
  readonly metrics: Readonly<Record<string, Tensor>>;
  /** Gradients of the loss with respect to the trained tensors, by their names: means over ranks. */
  readonly gradients: ReadonlyMap<string, Tensor>;
};

/** Raised while a step is being built, where its objective and its trained tensors do not fit together. */
export class ObjectiveError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
  readonly remedy: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ObjectiveError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Subject, reason and remedy as a sentence. */
  override get message(): string {
    return `Cannot train ${this.subject}: ${this.reason}; ${this.remedy}`;
  }
}

/**
 * Derives the gradients of an objective with respect to all tensors that are declared trained, and updates these by an
 * optimiser (docs/method.md, section 7); `rate` is the learning rate of the step, []. Adds the metrics `param_norm` and
 * `grad_norm`, and in half precision those of the loss scale. Throws an ObjectiveError where no gradient of the loss
 * reaches a trained tensor.
 */
export const optimize = <O extends Objective>(
  objective: O,
  rate: Tensor,
  options: OptimizeOptions,
): TrainingStep<O> => {
  const { state, loss } = objective;
  const { optimizer, name: optimizerName } = optimizerOf(options.optimizer);
  const trained = trainedOf(state);
  const parameters = trained.map(({ tensor }) => tensor);
  const scaling = options.precision === "f16" ? lossScale(state) : null;
  const reached = gradientsWhereReached(scaling === null ? loss : mul(loss, scaling.scale), parameters);
  expectAllReached(trained, reached);
  const scaled = reached.map((options.sync ?? singleProcess).mean);
  const gradients = scaling === null ? scaled : scaled.map(scaling.unscaled);
  const [paramSquares, gradSquares, overflows] = sums([
    parameters.map(square),
    gradients.map(square),
    ...scaling === null ? [] : [scaled.map(nonFinite)],
  ]);
  const scaleAfterStep = scaling?.afterStep(overflows);
  const keepOldIfSkipped = scaleAfterStep?.keepOldIfSkipped ?? ((next: Tensor) => next);
  const { weightDecay, momentum } = options;
  trained.forEach((declared, i) => {
    const { tensor } = declared;
    const next = optimizer(tensor, gradients[i], bufferOf(state, declared), { rate, weightDecay, momentum });
    state.updates.set(tensor, keepOldIfSkipped(next.parameter, tensor));
    for (const [buffer, value] of next.buffers) state.updates.set(buffer, keepOldIfSkipped(value, buffer));
  });
  state.optimizer = optimizerName;
  const norms = { param_norm: sqrt(paramSquares), grad_norm: sqrt(gradSquares) };
  return {
    ...objective,
    metrics: { ...objective.metrics, ...norms, ...scaleAfterStep?.metrics },
    gradients: new Map(trained.map(({ name }, i) => [name, gradients[i]])),
  };
};

/** An optimiser and its name: that of its row, or of the function. */
const optimizerOf = (choice: OptimizerName | Optimizer): { optimizer: Optimizer; name: string } => {
  if (typeof choice === "string") return { optimizer: OPTIMIZERS[choice].optimizer, name: choice };
  const builtIn = optimizerNames.find((name) => OPTIMIZERS[name].optimizer === choice);
  return { optimizer: choice, name: builtIn ?? (choice.name || "a function without a name") };
};

const bufferOf = (state: StateBuilder, { name, shape, storage }: Declared): BufferOf => (buffer, ownShape) =>
  state.declare(buffer === undefined ? `optimizer.${name}` : `optimizer.${name}.${buffer}`, {
    role: "buffer",
    ...ownShape === undefined ? { shape, storage } : { shape: ownShape, storage: "same" },
    init: { kind: "constant", value: 0 },
  });

const trainedOf = ({ declared }: StateBuilder): Declared[] => {
  const all = [...declared.values()];
  const trained = all.filter(({ role }) => role === "trained");
  if (trained.length > 0) return trained;
  throw new ObjectiveError({
    subject: all.length === 0 ? "without a state" : inWords(all),
    reason: "the objective declares no tensor trained",
    remedy: 'give those that the optimiser is to move the role "trained"',
  });
};

function expectAllReached(
  trained: readonly Declared[],
  gradients: readonly (Tensor | null)[],
): asserts gradients is readonly Tensor[] {
  const missed = trained.filter((_, i) => gradients[i] === null);
  if (missed.length === 0) return;
  const [them, buffers] = missed.length === 1 ? ["it", "a buffer"] : ["them", "buffers"];
  throw new ObjectiveError({
    subject: inWords(missed),
    reason: missed.length === trained.length
      ? "the gradients of the objective reach no trained tensor"
      : `the gradients of the objective do not reach ${them}`,
    remedy: `let the loss depend on ${them}, or declare ${them} as ${buffers}`,
  });
}

/** The names of tensors, of the first eight where there are more. */
const inWords = (tensors: readonly Declared[]): string => {
  const names = tensors.slice(0, 8).map(({ name }) => name).join(", ");
  return tensors.length > 8 ? `${names} and ${tensors.length - 8} more` : names;
};

/**
 * The sum of all elements of each list of tensors, scalars []; the lists have tensors of the same shapes. Tensors of one
 * shape share a kernel, three at a time: with their gradients six buffers, as many as every adapter can bind.
 */
const sums = (lists: readonly (readonly Tensor[])[]): Tensor[] => {
  const alike = Map.groupBy(lists[0].keys(), (i) => lists[0][i].shape.join());
  const partials = [...alike.values()].flatMap((indices) =>
    Array.from({ length: Math.ceil(indices.length / 3) }, (_, part) => {
      const three = indices.slice(3 * part, 3 * part + 3);
      return totals(lists.map((tensors) => three.map((i) => tensors[i]).reduce(add)));
    })
  );
  const all = partials.reduce(add);
  return lists.map((_, i) => reshape(slice(all, 0, i, 1), []));
};

const square = (x: Tensor) => mul(x, x);
