/** The step of a run as the graph that its adapter gets: augmentation, networks, loss and optimiser. */
import { viewWords } from "../data/view_table.ts";
import { type AdapterTraits, input } from "../ops/tensor.ts";
import { augment, packingFor } from "./augment.ts";
import type { Config } from "./config.ts";
import { rateInputs, type Rates, slotConStep, type Step, type Views } from "./step.ts";

/** Makes the graph of a step from the augmented views: the place to put another loss, augmentation or network. */
export type StepBuilder = (views: Views, rates: Rates, config: Config) => Pick<Step, "state" | "metrics">;

/** The graph of a run's step, and how its batches are packed. Its inputs are a packed batch and the rates. */
export const stepGraph = (config: Config, traits: AdapterTraits, build: StepBuilder = slotConStep) => {
  const packing = packingFor(config.imageSize, config.batchSize, traits.maxBinding);
  const { state, metrics } = build(viewInputs(config, packing), rateInputs(), config);
  return { packing, state, graph: { label: "the step", updates: state.updates, outputs: metrics } };
};

/** The inputs of a step as they come from packed batches: augmentation is the first thing the device does. */
const viewInputs = ({ batchSize }: Config, packing: ReturnType<typeof packingFor>): Views => ({
  images: augment(
    input("pixels", [packing.capacity / 4], "u32"),
    input("views", [2 * batchSize, viewWords(packing)], "u32"),
    packing,
  ),
  coords: input("coords", [2 * batchSize, 4]),
  flips: input("flips", [2 * batchSize]),
});
