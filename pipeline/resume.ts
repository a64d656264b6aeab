/** Where a run begins: at a checkpoint's state, with the weights of another run, or from nothing. */
import { dirname } from "node:path";
import { Effect } from "effect";
import {
  type Checkpoint,
  CheckpointError,
  compareState,
  latestCheckpoint,
  loadCheckpoint,
} from "./checkpoint_file.ts";
import { type Config, type OptionName, optionNames } from "./config.ts";
import type { StateBuilder } from "./model/network.ts";
import { flagName } from "./option_name.ts";
import { type Schedule, teacherCounter } from "./optim/schedule.ts";
import { checkpointShapes, initialState, type StateValues } from "./state.ts";

export interface StartingPoint {
  /** Optimiser steps done. */
  readonly step: number;
  /** By how much the teacher's counter is ahead of the step: not 0 where a run began in a later epoch. */
  readonly teacherLead: number;
  readonly values: StateValues;
  /** What the user should know of it. */
  readonly notes: readonly string[];
}

/**
 * Where a run begins. `--auto-resume` comes first, so that a run that was started from a checkpoint or from weights
 * goes on by itself. Fails with a `CheckpointError` where what is asked for cannot be read or cannot work.
 */
export const startingPoint = Effect.fn("startingPoint")(function* (
  config: Config,
  state: StateBuilder,
  schedule: Schedule,
  instances: number,
) {
  const own = config.autoResume ? yield* latestCheckpoint(config.outputDir) : null;
  if (own !== null) return yield* goOn(own, config, state, schedule, instances);
  if (config.resume !== null) {
    return yield* goOn(yield* loadCheckpoint(config.resume), config, state, schedule, instances);
  }
  const step = (config.startEpoch - 1) * schedule.stepsPerEpoch;
  const counter = teacherCounter({ ...config, world: 1, instances }, config.startEpoch - 1);
  const values = initialState(state, config.seed);
  return { step, teacherLead: counter - step, values, notes: [] } satisfies StartingPoint as StartingPoint;
});

const goOn = Effect.fnUntraced(function* (
  checkpoint: Checkpoint,
  config: Config,
  state: StateBuilder,
  schedule: Schedule,
  instances: number,
) {
  yield* compareState(checkpointShapes(state), checkpoint);
  const { step, teacherCounter: counter } = checkpoint.meta;
  return {
    step,
    teacherLead: counter - step,
    values: checkpoint.tensors,
    notes: [],
  } satisfies StartingPoint as StartingPoint;
});
