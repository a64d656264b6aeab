/** Where fine-tuning begins: at the state of a checkpoint, with weights from elsewhere, or from nothing. */
import { Effect } from "effect";
import type { FormatError } from "../../../data/files/format_error.ts";
import type { SegmentationClass } from "../../../data/datasets/segmentation/segmentation_set.ts";
import type { StateBuilder } from "../../model/state_builder.ts";
import type { Checkpoint, CheckpointError } from "../../run/checkpoint_file.ts";
import {
  autoResumed,
  changedOptions,
  differenceNotes,
  expectSameOptimizer,
  isNewestIn,
  resumedFrom,
  resumedValues,
  type StartingPoint,
} from "../../run/resume.ts";
import { SEGMENTATION_OPTIONS, type SegmentationConfig } from "./config.ts";
import { SEGMENTATION, type SegmentationMeta } from "./task.ts";
import { segmentorStart } from "./weights.ts";

/** A run as far as its starting point depends on it. */
export interface SegmentationBeginning {
  /** The options of the run. */
  readonly config: SegmentationConfig;
  /** The state that the run's step declares. */
  readonly state: StateBuilder;
  /** Training images. */
  readonly instances: number;
  /** The classes of the data set. */
  readonly classes: readonly SegmentationClass[];
}

/**
 * Where a run begins: `--auto-resume` comes first, then `--resume`, then `--weights`. Fails with a `CheckpointError` or a
 * `FormatError` where the file cannot be read or does not fit the run.
 */
export const segmentationStart: (
  run: SegmentationBeginning,
) => Effect.Effect<StartingPoint, CheckpointError | FormatError> = Effect.fn("segmentationStart")(
  function* (run) {
    const { config, state } = run;
    const own = yield* autoResumed(SEGMENTATION, config);
    if (own !== null) return yield* goOn(own, run, true);
    if (config.resume !== null) {
      const found = yield* resumedFrom(SEGMENTATION, config.resume);
      return yield* goOn(found, run, yield* isNewestIn(config.outputDir, config.resume));
    }
    const { values, notes } = yield* segmentorStart(config.weights, state, config.seed);
    return { step: 0, values, notes, goesOnWith: "nothing" as const };
  },
);

/** From a checkpoint of fine-tuning; `isOwn` says whether it is the newest one in the run's own folder. */
const goOn = Effect.fnUntraced(function* (
  checkpoint: Checkpoint<SegmentationMeta>,
  { config, state, instances, classes }: SegmentationBeginning,
  isOwn: boolean,
): Effect.fn.Return<StartingPoint, CheckpointError> {
  const { file, meta } = checkpoint;
  yield* expectSameOptimizer(file, meta.config.optimizer, state.optimizer ?? config.optimizer);
  const values = yield* resumedValues(checkpoint, state);
  const differences = [
    ...changedOptions(SEGMENTATION_OPTIONS, meta.config, config),
    ...meta.instances === instances ? [] : [`${meta.instances} pictures are ${instances} now`],
    ...classes.flatMap(({ name }, i) =>
      meta.classes[i]?.name === name ? [] : [`class ${i}, ${meta.classes[i]?.name}, is ${name} now`]
    ).slice(0, 3),
  ];
  return {
    step: meta.step,
    values,
    notes: differenceNotes(file, differences),
    file,
    goesOnWith: isOwn ? "run" : "nothing",
  };
});
