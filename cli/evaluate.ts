import { Command } from "effect/cli";
import { grouping } from "./evaluate/grouping.ts";
import { knn } from "./evaluate/knn.ts";
import { linear } from "./evaluate/linear.ts";
import { segmentationProbe } from "./evaluate/segmentation_probe.ts";

export const evaluate = Command.make("evaluate").pipe(
  Command.withDescription(
    "Score what was learnt on labelled pictures, beside an untrained network and colours alone: a table, all numbers as " +
      "JSON, and a page with pictures of successes and failures.",
  ),
  Command.withShortDescription("Score a checkpoint on labelled pictures"),
  Command.withSubcommands([grouping, knn, linear, segmentationProbe]),
);
