/** The step of a run as a graph for one adapter: augmentation, networks, loss and optimiser. */
import type { Graph } from "../../ops/compiler/graph.ts";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { augmentationRowWords } from "../../ops/image/augmentation_row.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import type { TrainingStep } from "../optim/optimize.ts";
import { singleProcess, type Sync } from "../ranks/sync.ts";
import { bytesIn } from "../run/bytes.ts";
import { augment, packingFor } from "./augment.ts";
import type { Config } from "./config.ts";
import { rateInputs, type Rates, slotConStep, type Views } from "./step.ts";

/** The options of a run, with the batch size of one rank; `sync` exchanges tensors with the other ranks. */
export type StepConfig = Config & { readonly sync: Sync };

/**
 * Builds a step from the augmented views: state with its next values, and metrics. A builder of your own may change the
 * views, the loss, the networks or the optimiser. With `loss` and `gradients`, as `optimize` returns them, profiles tell
 * forward, backward and update apart.
 */
export type StepBuilder = (
  views: Views,
  rates: Rates,
  config: StepConfig,
) => Pick<TrainingStep, "state" | "metrics"> & Partial<Pick<TrainingStep, "loss" | "gradients">>;

/** The step of a run, to be compiled. */
export interface StepGraph {
  /** How batches are packed. */
  readonly packing: ReturnType<typeof packingFor>;
  /** The state of the step, with its next values. */
  readonly state: StateBuilder;
  /** The graph of the step, with its outputs and updates. */
  readonly graph: Graph;
}

/**
 * The graph of a run's step. Its inputs are a packed batch (`pixels`, `views`, `coords`, `flips`), the rates
 * (`learningRate`, `teacherMomentum`) and the state; its outputs are the metrics. Throws what `build` throws: for SlotCon a
 * ShapeError where sizes do not fit.
 */
export const stepGraph = (
  config: Config,
  traits: AdapterTraits,
  build: StepBuilder = slotConStep,
  sync: Sync = singleProcess,
): StepGraph => {
  const packing = packingFor(config.imageSize, config.batchSize, traits.maxBinding);
  const views = viewInputs(config, packing);
  const step = build(views, rateInputs(), { ...config, sync });
  const { state, metrics } = step;
  const graph = {
    label: "the step",
    precision: config.precision,
    memoryLimit: config.memoryLimit === null ? undefined : bytesIn(config.memoryLimit),
    updates: state.updates,
    outputs: metrics,
    stageOf: stageOf(views, step),
  };
  return { packing, state, graph };
};

/**
 * The stage that a tensor belongs to. Tensors are numbered in the order of creation, so the results of the stages divide
 * them; a step without loss and gradients is all "forward". The teacher's moving average is in "forward", too, since it
 * precedes the teacher's own pass.
 */
const stageOf = ({ images }: Views, { loss, gradients }: ReturnType<StepBuilder>) => {
  const last = gradients === undefined ? Infinity : Math.max(...[...gradients.values()].map(({ id }) => id));
  return ({ id }: Tensor) => {
    if (id <= images.id) return "augment";
    if (loss === undefined || id <= loss.id) return "forward";
    return id <= last ? "backward" : "update";
  };
};

/** The views of a packed batch, which is an input of the graph: the device augments first. */
const viewInputs = ({ batchSize }: Config, packing: ReturnType<typeof packingFor>): Views => ({
  images: augment(
    input("pixels", [packing.capacity / 4], "u32"),
    input("views", [2 * batchSize, augmentationRowWords(packing)], "u32"),
    packing,
  ),
  coords: input("coords", [2 * batchSize, 4]),
  flips: input("flips", [2 * batchSize]),
});
