/** One step of fine-tuning a segmentor as a pure function: state, images, labels and rate in, next state and metrics out. */
import { add, div, maximum, mul } from "../../../ops/arithmetic.ts";
import { enlargedCrossEntropy } from "../../../ops/enlarged_cross_entropy.ts";
import { sizeOf } from "../../../ops/graph/shape.ts";
import { reshape, type Tensor } from "../../../ops/graph/tensor.ts";
import { totals } from "../../../ops/reduce.ts";
import { slice } from "../../../ops/slice.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { type Objective, optimize, type OptimizeOptions, type TrainingStep } from "../../optim/optimize.ts";
import { singleProcess, type Sync } from "../../ranks/sync.ts";
import { type KeptChannels, type Segmented, segmentor, type SegmentorOptions } from "./network.ts";

/** The options of a step. */
export interface SegmentationStepOptions extends SegmentorOptions, OptimizeOptions {
  /** Whether logits are enlarged to the labels with their corners aligned. */
  readonly alignCorners: boolean;
}

/** The images and labels of a step. */
export interface SegmentationBatch {
  /** Normalised, [B, H, W, 3]. */
  readonly images: Tensor;
  /** The class of each pixel; 255, or any that is no class, is ignored: [B, H, W], u32. */
  readonly labels: Tensor;
  /** The channels before the classifiers that dropout keeps; null for all. */
  readonly kept: KeptChannels | null;
}

/** The loss of a segmentor with the tensors that it was computed from. */
export interface SegmentationObjective extends Objective {
  /** What the segmentor computed. */
  readonly segmented: Segmented;
}

/** A training step of a segmentor. */
export type SegmentationStep = TrainingStep<SegmentationObjective>;

/** One step on this batch at the learning rate `rate`, []. */
export const segmentationStep = (
  batch: SegmentationBatch,
  rate: Tensor,
  options: SegmentationStepOptions,
): SegmentationStep => optimize(segmentationLoss(batch, options), rate, options);

/**
 * The loss of both heads (docs/method.md, section 15): the cross-entropy of their logits, enlarged to the labels, a mean over all pixels of the batch,
 * to which ignored pixels contribute 0. Metrics are the terms, with their weights, and the accuracy of each head in per
 * cent of the pixels that are not ignored.
 */
export const segmentationLoss = (
  { images, labels, kept }: SegmentationBatch,
  options: SegmentationStepOptions,
): SegmentationObjective => {
  const state = new StateBuilder();
  const sync = options.sync ?? singleProcess;
  const segmented = segmentor(student(state, { groups: 1, sync }), images, options, kept);
  const { head, auxiliary } = segmented;
  const main = headLoss(head.logits, labels, sync, options);
  const extra = auxiliary === null ? null : headLoss(auxiliary.logits, labels, sync, options);
  const weighted = extra === null ? null : mul(options.auxiliaryWeight, extra.loss);
  const loss = weighted === null ? main.loss : add(main.loss, weighted);
  return {
    state,
    loss,
    segmented,
    metrics: {
      loss: sync.mean(loss),
      loss_head: sync.mean(main.loss),
      acc_head: main.accuracy,
      ...weighted === null ? {} : { loss_aux: sync.mean(weighted), acc_aux: extra!.accuracy },
    },
  };
};

/** The loss of logits [B, h, w, K] on this rank, and their accuracy on all ranks in per cent, 0 where no pixel counts. */
const headLoss = (
  logits: Tensor,
  labels: Tensor,
  sync: Sync,
  { alignCorners }: SegmentationStepOptions,
): { loss: Tensor; accuracy: Tensor } => {
  const { loss, hits, counted } = enlargedCrossEntropy(logits, labels, { alignCorners });
  const sums = totals([loss, hits, counted]);
  const [total, right, all] = [0, 1, 2].map((i) => reshape(slice(sums, 0, i, 1), []));
  return {
    loss: div(total, sizeOf(labels.shape)),
    accuracy: div(mul(100, sync.mean(right)), maximum(sync.mean(all), 1e-6)),
  };
};
