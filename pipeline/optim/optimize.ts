/** From an objective to a training step: gradients, loss scaling, and the optimiser's updates. */
import { add, mul, sqrt } from "../../ops/arithmetic.ts";
import { gradients } from "../../ops/autodiff.ts";
import { reshape, type Tensor } from "../../ops/graph/tensor.ts";
import { nonFinite } from "../../ops/non_finite.ts";
import { totals } from "../../ops/reduce.ts";
import { slice } from "../../ops/slice.ts";
import type { Declared } from "../model/state_builder.ts";
import type { Objective, Rates, Step, StepOptions } from "../pretrain/step.ts";
import { singleProcess } from "../ranks/sync.ts";
import { lars } from "./lars.ts";
import { lossScale } from "./loss_scale.ts";
import { type Optimizer, sgd } from "./sgd.ts";

export const OPTIMIZERS: Readonly<Record<"lars" | "sgd", Optimizer>> = { lars, sgd };

/** Derives the gradients of an objective and moves the student's parameters along them (section 7). */
export const optimize = (objective: Objective, rates: Rates, options: StepOptions): Step => {
  const { state, loss } = objective;
  const learned = [...state.declared.values()].filter(isLearned);
  const parameters = learned.map(({ tensor }) => tensor);
  const scaling = options.precision === "f16" ? lossScale(state) : null;
  const scaled = gradients(scaling === null ? loss : mul(loss, scaling.scale), parameters)
    .map((options.sync ?? singleProcess).mean);
  const slopes = scaling === null ? scaled : scaled.map(scaling.unscaled);
  const [paramSquares, gradSquares, overflows] = sums([
    parameters.map(square),
    slopes.map(square),
    ...scaling === null ? [] : [scaled.map(nonFinite)],
  ]);
  const settled = scaling?.afterStep(overflows);
  const unlessSkipped = settled?.keepOldIfSkipped ?? ((next: Tensor) => next);
  learned.forEach(({ name, tensor, shape, storage }, i) => {
    const velocity = state.declare(`optimizer.${name}`, shape, storage, { kind: "constant", value: 0 });
    const next = OPTIMIZERS[options.optimizer](tensor, slopes[i], velocity, {
      rate: rates.learningRate,
      weightDecay: options.weightDecay,
      momentum: options.momentum,
    });
    state.updates.set(tensor, unlessSkipped(next.parameter, tensor));
    state.updates.set(velocity, unlessSkipped(next.velocity, velocity));
  });
  const norms = { param_norm: sqrt(paramSquares), grad_norm: sqrt(gradSquares) };
  return {
    ...objective,
    metrics: { ...objective.metrics, ...norms, ...settled?.metrics },
    gradients: new Map(learned.map(({ name }, i) => [name, slopes[i]])),
  };
};

/**
 * The sum of all elements of each list of tensors, scalars []; the lists have tensors of the same shapes. Tensors of one
 * shape share a kernel, three at a time: with their gradients six buffers, as many as every adapter can bind.
 */
const sums = (lists: readonly (readonly Tensor[])[]): Tensor[] => {
  const alike = Map.groupBy(lists[0].keys(), (i) => lists[0][i].shape.join());
  const parts = [...alike.values()].flatMap((all) =>
    Array.from({ length: Math.ceil(all.length / 3) }, (_, part) => {
      const some = all.slice(3 * part, 3 * part + 3);
      return totals(lists.map((tensors) => some.map((i) => tensors[i]).reduce(add)));
    })
  );
  const each = parts.reduce(add);
  return lists.map((_, i) => reshape(slice(each, 0, i, 1), []));
};

const square = (x: Tensor) => mul(x, x);

/** Is this state of the student, changed by gradients? */
const isLearned = ({ name, storage }: Declared) =>
  storage !== "running" && /^(encoder_q|projector_q|grouping_q|predictor_slot)\./.test(name);
