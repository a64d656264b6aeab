import { input } from "../../ops/tensor.ts";
import type { Config } from "../config.ts";
import { initialState, type StateValues } from "../state.ts";
import { rateInputs, slotConLoss } from "../step.ts";

/** The networks that a run of this configuration starts with: what to compare a trained one to. */
export const untrained = (config: Config): StateValues => {
  const { batchSize, imageSize, seed } = config;
  const views = {
    images: input("images", [2 * batchSize, imageSize, imageSize, 3]),
    coords: input("coords", [2 * batchSize, 4]),
    flips: input("flips", [2 * batchSize]),
  };
  return initialState(slotConLoss(views, rateInputs(), config).state, seed);
};
