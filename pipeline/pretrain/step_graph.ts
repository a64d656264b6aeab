/** The step of a run as the graph that its adapter gets: augmentation, networks, loss and optimiser. */
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { augmentationRowWords } from "../../ops/image/augmentation_row.ts";
import { singleProcess, type Sync } from "../ranks/sync.ts";
import { bytesIn } from "../run/bytes.ts";
import { augment, packingFor } from "./augment.ts";
import type { Config } from "./config.ts";
import { rateInputs, type Rates, slotConStep, type Step, type Views } from "./step.ts";

/** The run's options, with the batch of this rank; `sync` is what it exchanges with others. */
export type StepConfig = Config & { readonly sync: Sync };

/** Makes the graph of a step from the augmented views: the place to put another loss, augmentation or network. */
export type StepBuilder = (
  views: Views,
  rates: Rates,
  config: StepConfig,
) => Pick<Step, "state" | "metrics"> & Partial<Pick<Step, "loss" | "gradients">>;

/** The graph of a run's step, and how its batches are packed. Its inputs are a packed batch and the rates. */
export const stepGraph = (
  config: Config,
  traits: AdapterTraits,
  build: StepBuilder = slotConStep,
  sync: Sync = singleProcess,
) => {
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
 * The stage that a tensor is made in. Tensors are numbered as they are made, so where a stage's result is known, the
 * stage is; a step that keeps its loss and gradients to itself is all "forward". The teacher follows the student in
 * "forward", since it has to before its own pass.
 */
const stageOf = ({ images }: Views, { loss, gradients }: ReturnType<StepBuilder>) => {
  const last = gradients === undefined ? Infinity : Math.max(...[...gradients.values()].map(({ id }) => id));
  return ({ id }: Tensor) => {
    if (id <= images.id) return "augment";
    if (loss === undefined || id <= loss.id) return "forward";
    return id <= last ? "backward" : "update";
  };
};

/** The inputs of a step as they come from packed batches: augmentation is the first thing the device does. */
const viewInputs = ({ batchSize }: Config, packing: ReturnType<typeof packingFor>): Views => ({
  images: augment(
    input("pixels", [packing.capacity / 4], "u32"),
    input("views", [2 * batchSize, augmentationRowWords(packing)], "u32"),
    packing,
  ),
  coords: input("coords", [2 * batchSize, 4]),
  flips: input("flips", [2 * batchSize]),
});
