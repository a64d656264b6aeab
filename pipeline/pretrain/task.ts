/** Pretraining as its checkpoints describe it. */
import { Effect, Schema } from "effect";
import type { StateBuilder } from "../model/state_builder.ts";
import { CheckpointError, type RunMeta, type Task } from "../run/checkpoint_file.ts";
import { type Config, OPTIONS, PRETRAIN_OPTIONS } from "./config.ts";

/** The options of a run with the optimiser that it really has: a step of one's own may have another than `--optimizer` can choose. */
export type RecordedConfig = Omit<Config, "optimizer"> & { readonly optimizer: string };

const recordedConfigSchema = Schema.Struct({
  ...PRETRAIN_OPTIONS.fields,
  optimizer: Schema.String.pipe(
    Schema.withDecodingDefaultKey(Effect.succeed<string>(OPTIONS.optimizer.initial)),
  ),
}) as unknown as Schema.Codec<RecordedConfig, Partial<RecordedConfig>>;

/** What a checkpoint of pretraining says of its run. */
export interface PretrainMeta {
  /** Optimiser steps done. */
  readonly step: number;
  /** Updates of the teacher done, by which its momentum goes. */
  readonly teacherCounter: number;
  /** Images of the data set. */
  readonly instances: number;
  /** The options of the run. */
  readonly config: RecordedConfig;
}

/** Pretraining, for reading and writing its checkpoints. */
export const PRETRAIN: Task<PretrainMeta> = {
  name: PRETRAIN_OPTIONS.task,
  meta: Schema.Struct({
    step: Schema.Int,
    teacherCounter: Schema.Int,
    instances: Schema.Int,
    config: recordedConfigSchema,
  }),
};

/** The options of a run as its checkpoints say them, by the state of its step. */
export const recordedConfig = (config: Config, { optimizer }: StateBuilder): RecordedConfig => ({
  ...config,
  optimizer: optimizer ?? config.optimizer,
});

/**
 * What a checkpoint that was opened without naming its task says of a pretraining run. Fails with a `CheckpointError` where
 * it is of another task, or says something else.
 */
export const pretrainMeta = (
  file: string,
  { task, meta }: { readonly task: string; readonly meta: RunMeta },
): Effect.Effect<PretrainMeta, CheckpointError> => {
  const fail = (reason: string) => new CheckpointError({ subject: file, action: "load", reason });
  return task === PRETRAIN.name
    ? Schema.decodeUnknownEffect(PRETRAIN.meta)(meta).pipe(
      Effect.mapError(({ message }) => fail(`its description of the run is wrong: ${message}`)),
    )
    : Effect.fail(fail(`this is a checkpoint of ${task}; expected one of ${PRETRAIN.name}`));
};
