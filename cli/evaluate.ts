import { Command } from "effect/cli";
import { grouping } from "./evaluate/grouping.ts";
import { knn } from "./evaluate/knn.ts";
import { linear } from "./evaluate/linear.ts";
import { segmentation } from "./evaluate/segmentation.ts";
import { segmentationProbe } from "./evaluate/segmentation_probe.ts";

export const evaluate = Command.make("evaluate").pipe(
  Command.withDescription(
    "Score what was learnt on labelled pictures: a table, all numbers as JSON, and a page with pictures of successes and " +
      "failures. An encoder's scores stand beside those of an untrained network and of colours alone.",
  ),
  Command.withShortDescription("Score a checkpoint on labelled pictures"),
  Command.withSubcommands([grouping, knn, linear, segmentation, segmentationProbe]),
);
