/** Where a pretraining run begins: at the state of a checkpoint, with weights from elsewhere, or from nothing. */
import { Effect } from "effect";
import { match } from "ts-pattern";
import type { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { planSchedule, type Schedule, teacherCounter } from "../optim/schedule.ts";
import { type Checkpoint, CheckpointError } from "../run/checkpoint_file.ts";
import { initialState } from "../run/initial_state.ts";
import {
  autoResumed,
  changedOptions,
  differenceNotes,
  expectSameOptimizer,
  isNewestIn,
  nameGoodNeighbour,
  resumedFrom,
  resumedValues,
  type StartingPoint as AnyStart,
} from "../run/resume.ts";
import { readState } from "../run/state.ts";
import type { StateValues } from "../run/state_layout.ts";
import type { Published } from "../weights/published_file.ts";
import { openWeights, type WeightsFile } from "../weights/weights_file.ts";
import { type Config, PRETRAIN_OPTIONS } from "./config.ts";
import { publishedConfig, withAllVelocities } from "./published.ts";
import { PRETRAIN, type PretrainMeta, recordedConfig } from "./task.ts";

/** Where a pretraining run begins. */
export interface StartingPoint extends AnyStart {
  /** By how much the teacher's counter is ahead of the step: not 0 where a run began in a later epoch. */
  readonly teacherStepOffset: number;
}

/** A run as far as its starting point depends on it. */
export interface Beginning {
  /** The options of the run. */
  readonly config: Config;
  /** The state that the run's step declares. */
  readonly state: StateBuilder;
  /** The schedule of the run. */
  readonly schedule: Schedule;
  /** Images of the data set. */
  readonly instances: number;
}

/**
 * Where a run begins: `--auto-resume` comes first, then `--resume`, then `--init`. Fails with a `CheckpointError` or a
 * `FormatError` where the file cannot be read or does not fit the run.
 */
export const startingPoint: (
  run: Beginning,
) => Effect.Effect<StartingPoint, CheckpointError | FormatError> = Effect.fn("startingPoint")(
  function* (run) {
    const { config, state, schedule, instances } = run;
    const own = yield* autoResumed(PRETRAIN, config);
    if (own !== null) return yield* goOn(own, run, true);
    if (config.resume !== null) return yield* resumed(config.resume, run);

    const step = (config.startEpoch - 1) * schedule.stepsPerEpoch;
    const counter = teacherCounter({ ...config, world: 1, instances }, config.startEpoch - 1);
    const { values, notes } = config.init === null
      ? { values: initialState(state, config.seed), notes: [] }
      : yield* fromWeights(config.init, run);
    return { step, teacherStepOffset: counter - step, values, notes, goesOnWith: "nothing" as const };
  },
);

// --- A checkpoint ---

/** From a checkpoint of this project or of the published code. */
const resumed = Effect.fnUntraced(function* (file: string, run: Beginning) {
  const weights = yield* openWeights(file).pipe(Effect.catch(nameGoodNeighbour));
  return yield* match(weights.content)
    .with(
      { kind: "checkpoint" },
      () =>
        Effect.flatMap(
          Effect.zip(resumedFrom(PRETRAIN, file), isNewestIn(run.config.outputDir, file)),
          ([found, isOwn]) => goOn(found, run, isOwn),
        ),
    )
    .with({ kind: "published" }, ({ published }) => goOnPublished(weights, published, run))
    .otherwise(() =>
      Effect.fail(
        new CheckpointError({
          subject: file,
          action: "resume from",
          reason: "it holds weights, but no optimiser and no step: start a new run from them with --init",
        }),
      )
    );
}, Effect.scoped);

/** From a checkpoint of this project; `isOwn` says whether it is the newest one in the run's own folder. */
const goOn = Effect.fnUntraced(function* (
  checkpoint: Checkpoint<PretrainMeta>,
  run: Beginning,
  isOwn: boolean,
) {
  const { file, meta } = checkpoint;
  const now = recordedConfig(run.config, run.state);
  yield* expectSameOptimizer(file, meta.config.optimizer, now.optimizer);
  const values = yield* resumedValues(checkpoint, run.state);
  const { stepsPerEpoch } = run.schedule;
  const before = planSchedule({ ...meta.config, world: 1, instances: meta.instances }).stepsPerEpoch;
  const rescaled = (count: number) =>
    before === stepsPerEpoch ? count : Math.round(count / before * stepsPerEpoch);
  const step = rescaled(meta.step);
  const differences = [
    ...changedOptions(PRETRAIN_OPTIONS, meta.config, now),
    ...meta.instances === run.instances ? [] : [`${meta.instances} pictures are ${run.instances} now`],
    ...before === stepsPerEpoch
      ? []
      : [`an epoch has ${stepsPerEpoch} steps, not ${before}: step ${meta.step} becomes step ${step}`],
  ];
  return {
    step,
    teacherStepOffset: rescaled(meta.teacherCounter) - step,
    values,
    notes: differenceNotes(file, differences),
    file,
    goesOnWith: !isOwn ? "nothing" : before === stepsPerEpoch ? "run" : "state",
  } satisfies StartingPoint as StartingPoint;
});

/**
 * A published checkpoint goes on at the beginning of an epoch, with the teacher's counter that the published code
 * makes of that (docs/method.md, section 3).
 */
const goOnPublished = Effect.fnUntraced(function* (
  { file, tensors }: WeightsFile,
  published: Published,
  run: Beginning,
) {
  const { config, state, schedule, instances } = run;
  if (published.trouble !== null) {
    const reason = `${published.trouble}: start a new run from its weights with --init`;
    return yield* new CheckpointError({ subject: file, action: "resume from", reason });
  }
  if (published.optimizer !== null) {
    yield* expectSameOptimizer(file, published.optimizer, recordedConfig(config, state).optimizer);
  }
  const values = yield* resumedValues(
    { file, tensors: withAllVelocities(yield* readState(file, tensors), state) },
    state,
  );
  const step = published.epoch * schedule.stepsPerEpoch;
  const counter = teacherCounter({ ...config, world: 1, instances }, published.epoch);
  const differences = [
    ...changedOptions(PRETRAIN_OPTIONS, publishedConfig(published, config.width), config),
    ...published.steps === null || published.steps === step
      ? []
      : [`it counts ${published.steps} steps, ${published.epoch} epochs have ${step} here`],
  ];
  return {
    step,
    teacherStepOffset: counter - step,
    values,
    notes: differenceNotes(file, differences),
    file,
    goesOnWith: "nothing",
  } satisfies StartingPoint as StartingPoint;
});

// --- Weights ---

const MODULES = ["encoder", "projector", "grouping", "predictor_slot", "center"] as const;

/**
 * Initial values, but for the weights that a file has: module by module, both networks of a checkpoint, or an encoder
 * for both networks. Fails with a `CheckpointError` where the encoder is of another architecture, and with a
 * `FormatError` where a value is not finite; other modules that differ keep their initial values.
 */
const fromWeights = Effect.fnUntraced(function* (file: string, { config, state }: Beginning) {
  const { tensors, content, leftOut } = yield* openWeights(file);
  const values = new Map(initialState(state, config.seed));
  const names = [...values.keys()].filter((name) => !name.startsWith("optimizer."));
  const [taken, anew]: string[][] = [[], []];
  for (const module of MODULES) {
    const own = names.filter((name) => name.startsWith(module));
    const found = new Map<string, StoredTensor>();
    const problems: string[] = [];
    for (const name of own) {
      const tensor = tensorFor(name, tensors, content.kind === "encoder");
      const { shape } = values.get(name)!;
      if (tensor === undefined) {
        if (!name.endsWith("num_batches_tracked")) problems.push(`it has no ${name}`); // older files lack the counters
      } else if (!sameShape(tensor.shape, shape)) {
        problems.push(`${name} is [${tensor.shape.join(", ")}], not [${shape.join(", ")}]`);
      } else found.set(name, tensor);
    }
    if (problems.length === 0) {
      taken.push(module);
      for (const [name, tensor] of yield* readState(file, found)) values.set(name, tensor);
    } else if (module === "encoder") {
      const reason = `its encoder is not this run's (--arch, --width): ${problems.slice(0, 3).join("; ")}`;
      return yield* new CheckpointError({ subject: file, action: "start from", reason });
    } else anew.push(module);
  }
  const rest = anew.length === 0
    ? ""
    : `; what it has not, or of another shape, starts anew: ${anew.join(", ")}`;
  const heads = [...tensors.keys()].filter((name) => /^(decode|auxiliary)_head\./.test(name)); // a segmentor's
  const dropped = [
    ...new Set(
      [...leftOut, ...heads].map((name) =>
        name.replace(/(\.\d+)*\.?(weight|bias|running_\w+|num_\w+)?$/, "")
      ),
    ),
  ];
  const listed = dropped.slice(0, 8).join(", ") +
    (dropped.length > 8 ? ` and ${dropped.length - 8} more` : "");
  const notes = [
    `Weights from "${file}": ${taken.join(", ")}${rest}`,
    ...dropped.length === 0 ? [] : [`Left out of it: ${listed}`],
  ];
  return { values: values as StateValues, notes };
}, Effect.scoped);

/** The tensor of a file for a tensor of the run: a file with only one of the two networks gives its weights to both. */
const tensorFor = (name: string, tensors: ReadonlyMap<string, StoredTensor>, encoderAlone: boolean) =>
  encoderAlone ? tensors.get(name.replace(/^encoder_[qk]\./, "")) : tensors.get(name) ??
    tensors.get(name.replace(/^(\w+)_([qk])\./, (_, m, s) => `${m}_${s === "q" ? "k" : "q"}.`)) ??
    tensors.get(name.replace(/^encoder_[qk]\./, "backbone.")); // a segmentor's
