/** Files of recorded training steps: their configuration, and their tensors by name and shape. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { type ArchitectureName, ARCHITECTURES } from "../model/resnet.ts";
import type { StepOptions } from "../pretrain/step.ts";
import { recordedValues, type Values } from "./recorded_values.ts";

const Count = Schema.Int.check(Schema.isGreaterThan(0));

const Metadata = Schema.Struct({
  format: Schema.Literal("slotcon-step-recording/1"),
  config: Schema.fromJsonString(Schema.Struct({
    arch: Schema.Literals(Object.keys(ARCHITECTURES) as ArchitectureName[]),
    width: Count,
    image_size: Count,
    batch: Count, // of each rank
    world: Count, // ranks
    dim_hidden: Count,
    dim_out: Count,
    num_prototypes: Count,
    teacher_momentum: Schema.Finite,
    teacher_temp: Schema.Finite,
    student_temp: Schema.Finite,
    center_momentum: Schema.Finite,
    group_loss_weight: Schema.Finite,
    optimizer: Schema.Literals(["lars", "sgd"]),
    base_lr: Schema.Finite,
    weight_decay: Schema.Finite,
    momentum: Schema.Finite,
    warmup_epoch: Schema.Finite,
    warmup_multiplier: Schema.Finite,
    epochs: Count,
    start_epoch: Count,
    num_instances: Count,
    steps: Count,
  })),
});
const decodeMetadata = Schema.decodeUnknownEffect(Metadata);

/** The configuration of recorded steps. */
export type StepRecordingConfig = typeof Metadata.Type["config"];

/** The options of the recorded step. */
export const recordedOptions = (config: StepRecordingConfig): StepOptions => ({
  arch: config.arch,
  width: config.width,
  dimHidden: config.dim_hidden,
  dimOut: config.dim_out,
  numPrototypes: config.num_prototypes,
  teacherTemp: config.teacher_temp,
  studentTemp: config.student_temp,
  centerMomentum: config.center_momentum,
  groupLossWeight: config.group_loss_weight,
  optimizer: config.optimizer,
  weightDecay: config.weight_decay,
  momentum: config.momentum,
});

/** Recorded training steps. */
export interface StepRecording {
  /** Their configuration. */
  readonly config: StepRecordingConfig;
  /** The names of the recorded results. */
  readonly expected: readonly string[];
  /** The values of a tensor. */
  readonly values: Values;
}

/** Reads a recording of training steps. Fails with a `FormatError` that names `file` for any other file. */
export const readStepRecording: (
  recording: TensorFile,
  file: string,
) => Effect.Effect<StepRecording, FormatError> = Effect.fn("readStepRecording")(
  function* (recording, file) {
    const refuse = (reason: string) => new FormatError({ subject: file, reason });
    const { config } = yield* decodeMetadata(recording.metadata).pipe(
      Effect.mapError(({ message }) =>
        refuse(`its metadata is not that of recorded steps: ${message.replace(/\s*\n\s*/g, " ")}`)
      ),
    );
    const { num_instances, batch, world } = config;
    if (num_instances < batch * world) {
      return yield* refuse(
        `its config has no whole step: ${num_instances} instances for ${world} × ${batch} a step`,
      );
    }
    return {
      config,
      expected: [...recording.tensors.keys()].filter((name) => name.includes("/expect/")),
      values: recordedValues(recording, file),
    };
  },
);
