/**
 * One training step as a pure function: state, views and rates in, next state and metrics out. The stages are put
 * together here; each has a file of its own.
 */
import { add, mul } from "../../ops/arithmetic.ts";
import { input, reshape, stopGradient, type Tensor } from "../../ops/graph/tensor.ts";
import { mean } from "../../ops/reduce.ts";
import { predictor } from "../model/heads.ts";
import { type Network, type Training, within } from "../model/network.ts";
import { type Grouped, meanScores, prototypeUseInBatch, slotGrouping } from "../model/slot_grouping.ts";
import { forward, type ModelOptions, student, teacher } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { type Objective, optimize, type OptimizeOptions, type TrainingStep } from "../optim/optimize.ts";
import { singleProcess } from "../ranks/sync.ts";
import { aligned, groupingLoss, halfOfBatch, slotContrast } from "./loss.ts";

/** The options of a step. */
export interface StepOptions extends ModelOptions, OptimizeOptions {
  /** Temperature of the teacher's targets and of the grouping. */
  readonly teacherTemp: number;
  /** Temperature of the student's predictions. */
  readonly studentTemp: number;
  /** Share of itself that the centre keeps in a step. */
  readonly centerMomentum: number;
  /** Weight of the grouping loss; the slot loss has the rest. */
  readonly groupLossWeight: number;
  /** Ranks whose images this process has, one after the other; 1 unless one process replays a distributed run. */
  readonly blocks?: number; // not `ranks`, which is an option of a run that says how many processes there are
}

/** The two views of a batch, all first views before all second ones. */
export interface Views {
  /** [2B, S, S, 3], normalised. */
  readonly images: Tensor;
  /** The views' intersection as fractions of each view after flipping, [2B, 4]: x1, y1, x2, y2. */
  readonly coords: Tensor;
  /** 1 where a view is flipped left to right, [2B]. */
  readonly flips: Tensor;
}

/** The schedules' values in one step, scalars []. */
export interface Rates {
  /** Learning rate of the optimiser. */
  readonly learningRate: Tensor;
  /** Share of itself that the teacher keeps. */
  readonly teacherMomentum: Tensor;
}

/** The rates as inputs of a graph, under their own names. */
export const rateInputs = (): Rates => ({
  learningRate: input("learningRate", []),
  teacherMomentum: input("teacherMomentum", []),
});

/** What the student or the teacher computes from both views of a batch. */
export interface Side extends Grouped {
  /** Encoder output [2B, h, w, C]. */
  readonly features: Tensor;
  /** Projector output [2B, h, w, D]. */
  readonly projections: Tensor;
  /** Scores in the frame of the views' intersection, [2B, h, w, K]. */
  readonly aligned: Tensor;
}

/** The loss of SlotCon with the tensors that it was computed from. */
export interface SlotConObjective extends Objective {
  /** The student's side, through which gradients flow. */
  readonly student: Side;
  /** The teacher's side. */
  readonly teacher: Side;
  /**
   * Contributions to the terms of the loss: `group12` and `group21` of each image, [B], `contrast12` and `contrast21` of
   * each query, [R], with the slots of the queries in `rows12` and `rows21`, [R], u32: image · K + prototype.
   */
  readonly contributions: Readonly<Record<string, Tensor>>;
}

/** A training step of SlotCon. */
export type Step = TrainingStep<SlotConObjective>;

/** One SlotCon step on these views (docs/method.md, sections 3 to 7). */
export const slotConStep = (views: Views, rates: Rates, options: StepOptions): Step =>
  optimize(slotConLoss(views, rates, options), rates.learningRate, options);

/**
 * Both networks on both views and the loss between them; updates the teacher and the centre (docs/method.md, sections 3
 * to 6).
 */
export const slotConLoss = (views: Views, rates: Rates, options: StepOptions): SlotConObjective => {
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
  const centre = state.declare("center", {
    role: "buffer",
    shape: [1, options.numPrototypes],
    storage: "same",
    init: { kind: "constant", value: 0 },
  });
  const meanOfBatch = sync.mean(reshape(meanScores(stopGradient(k.scores)), centre.shape));
  const kept = options.centerMomentum;
  state.updates.set(centre, add(mul(kept, centre), mul(1 - kept, meanOfBatch)));

  const distil = (a: 0 | 1, b: 0 | 1) =>
    groupingLoss(
      halfOfBatch(q.aligned, a),
      halfOfBatch(k.aligned, b),
      reshape(centre, [options.numPrototypes]),
      options,
    );
  const perImage12 = distil(0, 1), perImage21 = distil(1, 0);
  const group12 = mean(perImage12), group21 = mean(perImage21);

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
      group12: perImage12,
      group21: perImage21,
      contrast12: contrast12.perQuery,
      contrast21: contrast21.perQuery,
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
