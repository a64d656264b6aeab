/** The step of a run as a graph for one adapter: from packed bytes to the next state. */
import type { Graph } from "../../../ops/compiler/graph.ts";
import { input, type Tensor } from "../../../ops/graph/tensor.ts";
import { labelBytes } from "../../../ops/image/label_bytes.ts";
import { normalizeBytes, type PixelStatistics } from "../../../ops/image/normalize_pixels.ts";
import { IMAGENET } from "../../model/resnet.ts";
import type { StateBuilder } from "../../model/state_builder.ts";
import type { TrainingStep } from "../../optim/optimize.ts";
import { singleProcess, type Sync } from "../../ranks/sync.ts";
import { bytesIn } from "../../run/bytes.ts";
import type { SegmentationConfig } from "./config.ts";
import { type SegmentationBatch, segmentationStep, type SegmentationStepOptions } from "./step.ts";

/** The options of a run, with the batch size of one rank; `sync` exchanges tensors with the other ranks. */
export type SegmentationStepConfig = SegmentationConfig & SegmentationStepOptions;

/** Builds a step from a batch: state with its next values, and metrics; see `StepBuilder` of pretraining. */
export type SegmentationStepBuilder = (
  batch: SegmentationBatch,
  rate: Tensor,
  config: SegmentationStepConfig,
) => Pick<TrainingStep, "state" | "metrics"> & Partial<Pick<TrainingStep, "loss" | "gradients">>;

/** The step of a run, to be compiled. */
export interface SegmentationStepGraph {
  /** The state of the step, with its next values. */
  readonly state: StateBuilder;
  /** The graph of the step, with its outputs and updates. */
  readonly graph: Graph;
}

/** Mean and standard deviation by which pixels, 0 … 255, are normalised, by the name of the option. */
export const PIXEL_STATISTICS: Readonly<Record<SegmentationConfig["pixelStatistics"], PixelStatistics>> = {
  imagenet: { mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375] },
  unscaled: IMAGENET,
};

/**
 * The graph of a run's step with so many classes. Its inputs are a packed batch, the rate (`learningRate`) and the state;
 * its outputs are the metrics. A batch of B images of S × S pixels is
 *
 * - `pixels` [B, S, S], u32: r | g << 8 | b << 16 | label << 24, the label 255 where it is ignored;
 * - `sizes` [B, 2], u32: height and width of each image's content; right of and below it images are 0 once normalised;
 * - `keptHead` [B, headChannels] and, with an auxiliary head, `keptAuxiliary` [B, auxiliaryChannels], f32, if there is
 *   dropout: see `KeptChannels`.
 *
 * Throws a ShapeError where sizes do not fit.
 */
export const segmentationStepGraph = (
  config: SegmentationConfig,
  classes: number,
  build: SegmentationStepBuilder = segmentationStep,
  sync: Sync = singleProcess,
): SegmentationStepGraph => {
  const batch = batchInputs(config);
  const step = build(batch, input("learningRate", []), { ...config, classes, sync });
  const graph = {
    label: "the step",
    precision: config.precision,
    memoryLimit: config.memoryLimit === null ? undefined : bytesIn(config.memoryLimit),
    updates: step.state.updates,
    outputs: step.metrics,
    stageOf: stageOf(batch, step),
  };
  return { state: step.state, graph };
};

/** The stage that a tensor belongs to: tensors are numbered in the order of creation, so results of stages divide them. */
const stageOf = ({ labels }: SegmentationBatch, { loss, gradients }: ReturnType<SegmentationStepBuilder>) => {
  const last = gradients === undefined ? Infinity : Math.max(...[...gradients.values()].map(({ id }) => id));
  return ({ id }: Tensor) => {
    if (id <= labels.id) return "normalise";
    if (loss === undefined || id <= loss.id) return "forward";
    return id <= last ? "backward" : "update";
  };
};

/** A packed batch, which is an input of the graph, as the network takes it. */
const batchInputs = (config: SegmentationConfig): SegmentationBatch => {
  const { batchSize: B, cropSize: S, headChannels, auxiliaryChannels, auxiliaryWeight } = config;
  const pixels = input("pixels", [B, S, S], "u32");
  const sizes = input("sizes", [B, 2], "u32");
  return {
    kept: config.dropout === 0 ? null : {
      head: input("keptHead", [B, headChannels]),
      auxiliary: auxiliaryWeight === 0 ? null : input("keptAuxiliary", [B, auxiliaryChannels]),
    },
    images: normalizeBytes(pixels, PIXEL_STATISTICS[config.pixelStatistics], sizes),
    labels: labelBytes(pixels),
  };
};
