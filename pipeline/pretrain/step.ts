/**
 * One training step as a pure function: state, views and rates in, next state and metrics out. Stages meet here; what
 * each of them computes is in its own file.
 */
import { add, mul } from "../../ops/arithmetic.ts";
import { input, reshape, stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { mean } from "../../ops/reduce.ts";
import { predictor } from "../model/heads.ts";
import { type Network, type Training, within } from "../model/network.ts";
import { type Grouped, meanScores, prototypeUseInBatch, slotGrouping } from "../model/slot_grouping.ts";
import { forward, type ModelOptions, student, teacher } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { optimize, type OPTIMIZERS } from "../optim/optimize.ts";
import { singleProcess, type Sync } from "../ranks/sync.ts";
import { aligned, groupingLoss, halfOfBatch, slotContrast } from "./loss.ts";

export interface StepOptions extends ModelOptions {
  readonly teacherTemp: number;
  readonly studentTemp: number;
  readonly centerMomentum: number;
  readonly groupLossWeight: number;
  readonly optimizer: keyof typeof OPTIMIZERS;
  readonly weightDecay: number;
  readonly momentum: number;
  /** f16: activations and their gradients in half precision, with loss scaling; f32 if not given. */
  readonly precision?: "f32" | "f16";
  /** Ranks whose pictures this process holds, one after the other; 1 unless a distributed run is replayed in one. */
  readonly blocks?: number; // not `ranks`, which is an option of a run that says how many processes there are
  /** What this process exchanges with other ranks; nothing if not given. */
  readonly sync?: Sync;
}

/** The two views of a batch, all first views before all second ones. */
export interface Views {
  /** [2B, S, S, 3], normalised. */
  readonly images: Tensor;
  /** Of the views' intersection, as fractions of each view after flipping, [2B, 4]: x1, y1, x2, y2. */
  readonly coords: Tensor;
  /** 1 where a view is flipped left to right, [2B]. */
  readonly flips: Tensor;
}

/** What changes from step to step; scalars []. */
export interface Rates {
  readonly learningRate: Tensor;
  readonly teacherMomentum: Tensor;
}

export const rateInputs = (): Rates => ({
  learningRate: input("learningRate", []),
  teacherMomentum: input("teacherMomentum", []),
});

export interface Side extends Grouped {
  readonly features: Tensor;
  readonly projections: Tensor;
  readonly aligned: Tensor;
}

/** A loss with all that it was computed from. */
export interface Objective {
  readonly state: StateBuilder;
  readonly loss: Tensor;
  /** Small tensors that every step reports: means over ranks. */
  readonly metrics: Readonly<Record<string, Tensor>>;
  readonly student: Side;
  readonly teacher: Side;
  /** Contributions to the terms of the loss: of each picture, and of each query with the row of its slot. */
  readonly contributions: Readonly<Record<string, Tensor>>;
}

export interface Step extends Objective {
  /** Gradients of the loss with respect to the student's parameters, by name. */
  readonly gradients: ReadonlyMap<string, Tensor>;
}

/** One SlotCon step on these views (method.md, sections 3 to 7). */
export const slotConStep = (views: Views, rates: Rates, options: StepOptions): Step =>
  optimize(slotConLoss(views, rates, options), rates, options);

/** Both networks on both views and the loss between them; the teacher and the centre move on (sections 3 to 6). */
export const slotConLoss = (views: Views, rates: Rates, options: StepOptions): Objective => {
  const state = new StateBuilder();
  const sync = options.sync ?? singleProcess;
  const training: Training = { groups: 2, sync };

  const side = (network: Network, name: "q" | "k"): Side => {
    const { features, projections, prototypes } = forward(network, name, views.images, options);
    const grouped = slotGrouping(projections, prototypes, options.teacherTemp);
    return { features, projections, ...grouped, aligned: aligned(grouped.scores, views.coords, views.flips) };
  };
  const own = student(state, training);
  const q = side(own, "q");
  const k = side(teacher(state, training, rates.teacherMomentum), "k");

  // The centre is subtracted as it was before this step and follows the teacher afterwards.
  const centre = state.declare("center", [1, options.numPrototypes], "same", { kind: "constant", value: 0 });
  const followed = sync.mean(reshape(meanScores(stopGradient(k.scores)), centre.shape));
  const held = options.centerMomentum;
  state.updates.set(centre, add(mul(held, centre), mul(1 - held, followed)));

  const distil = (a: 0 | 1, b: 0 | 1) =>
    groupingLoss(
      halfOfBatch(q.aligned, a),
      halfOfBatch(k.aligned, b),
      reshape(centre, [options.numPrototypes]),
      options,
    );
  const each12 = distil(0, 1), each21 = distil(1, 0);
  const group12 = mean(each12), group21 = mean(each21);

  const predicting = within({ ...own, training: { ...training, groups: 1 } }, "predictor_slot");
  const predict = (queries: Tensor, count: Tensor) => predictor(predicting, queries, options, count);
  const contrast = (a: 0 | 1, b: 0 | 1) =>
    slotContrast(viewOf(q, a), viewOf(k, b), predict, sync, options.blocks ?? 1);
  const contrast12 = contrast(0, 1), contrast21 = contrast(1, 0);

  const use = prototypeUseInBatch(stopGradient(k.scores), sync.mean);
  const weight = options.groupLossWeight;
  const lossGroup = mul(weight, add(group12, group21));
  const lossSlot = mul(1 - weight, add(contrast12.loss, contrast21.loss));
  const loss = add(lossGroup, lossSlot);
  return {
    state,
    loss,
    student: q,
    teacher: k,
    contributions: {
      group12: each12,
      group21: each21,
      contrast12: contrast12.each,
      contrast21: contrast21.each,
      rows12: contrast12.rows,
      rows21: contrast21.rows,
    },
    metrics: {
      loss: sync.mean(loss),
      loss_group: sync.mean(lossGroup),
      loss_slot: sync.mean(lossSlot),
      group12: sync.mean(group12),
      group21: sync.mean(group21),
      contrast12: sync.mean(contrast12.loss),
      contrast21: sync.mean(contrast21.loss),
      positives12: contrast12.positives,
      positives21: contrast21.positives,
      live_prototypes: use.live,
      prototype_entropy: use.entropy,
    },
  };
};

const viewOf = ({ scores, slots }: Grouped, index: 0 | 1): Grouped => ({
  scores: halfOfBatch(scores, index),
  slots: halfOfBatch(slots, index),
});
