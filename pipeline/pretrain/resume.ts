/** Where a run begins: at the state of a checkpoint, with weights from elsewhere, or from nothing. */
import { dirname, join, resolve } from "node:path";
import { Effect, Result } from "effect";
import { match } from "ts-pattern";
import { FormatError } from "../../data/files/format_error.ts";
import { type StoredTensor, widened } from "../../data/formats/file_tensor.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { isBuiltIn } from "../optim/optimizers.ts";
import { planSchedule, type Schedule, teacherCounter } from "../optim/schedule.ts";
import {
  type Checkpoint,
  CheckpointError,
  checkpointsIn,
  compareState,
  latestCheckpoint,
  loadCheckpoint,
} from "../run/checkpoint_file.ts";
import { initialState, type StartingPoint } from "../run/initial_state.ts";
import { flagName } from "../run/option_name.ts";
import { readState } from "../run/state.ts";
import { checkpointShapes, type StateTensor, type StateValues } from "../run/state_layout.ts";
import { openWeights, type WeightsFile } from "../weights/weights_file.ts";
import { type Config, type OptionName, optionNames } from "./config.ts";
import { type Published, publishedConfig, withAllVelocities } from "./published.ts";
import { PRETRAIN, type PretrainMeta, type RecordedConfig, recordedConfig } from "./task.ts";

/** A run as far as its start depends on it. */
export interface Beginning {
  readonly config: Config;
  readonly state: StateBuilder;
  readonly schedule: Schedule;
  readonly instances: number; // pictures of the data set
}

/**
 * Where a run begins. `--auto-resume` comes first, so that a run that was started from a checkpoint or from weights goes
 * on by itself. Fails with a `CheckpointError` or `FormatError` where what is asked for cannot be read or cannot work.
 */
export const startingPoint = Effect.fn("startingPoint")(
  function* (run: Beginning): Effect.fn.Return<StartingPoint, CheckpointError | FormatError> {
    const { config, state, schedule, instances } = run;
    const own = config.autoResume ? yield* latestCheckpoint(config.outputDir, PRETRAIN) : null;
    if (own !== null) return yield* goOn(own, run);
    if (config.resume !== null) return yield* resumed(config.resume, run);

    const step = (config.startEpoch - 1) * schedule.stepsPerEpoch;
    const counter = teacherCounter({ ...config, world: 1, instances }, config.startEpoch - 1);
    const { values, notes } = config.init === null
      ? { values: initialState(state, config.seed), notes: [] }
      : yield* fromWeights(config.init, run);
    return { step, teacherLead: counter - step, values, notes };
  },
);

// --- A checkpoint ---

/** From a checkpoint of this project or of the published code. */
const resumed = Effect.fnUntraced(function* (file: string, run: Beginning) {
  const weights = yield* openWeights(file).pipe(Effect.catch(orNameAGoodOne));
  return yield* match(weights.content)
    .with({ kind: "checkpoint" }, () =>
      loadCheckpoint(file, PRETRAIN).pipe(
        Effect.catchTag("CheckpointError", orNameAGoodOne),
        Effect.flatMap((checkpoint) => goOn(checkpoint, run)),
      ))
    .with({ kind: "published" }, ({ published }) => goOnPublished(weights, published, run))
    .otherwise(() =>
      new CheckpointError({
        file,
        action: "resume from",
        reason: "it holds weights, but no optimiser and no step: start a new run from them with --init",
      })
    );
}, Effect.scoped);

/** A damaged checkpoint may lie beside a good one. */
const orNameAGoodOne = Effect.fnUntraced(function* (error: CheckpointError | FormatError) {
  const folder = dirname(error.file);
  for (const name of yield* checkpointsIn(folder)) {
    const other = join(folder, name);
    if (resolve(other) === resolve(error.file)) continue;
    if (Result.isFailure(yield* Effect.result(loadCheckpoint(other)))) continue;
    const reason = `${error.reason}. The newest good one there is "${other}"`;
    return yield* error._tag === "FormatError"
      ? new FormatError({ ...error, reason })
      : new CheckpointError({ ...error, reason });
  }
  return yield* error;
});

const goOn = Effect.fnUntraced(function* ({ file, meta, tensors }: Checkpoint<PretrainMeta>, run: Beginning) {
  yield* expectSameOptimizer(file, meta.config.optimizer, run);
  const values = withLossScaleOf(run.state, tensors);
  yield* compareState(checkpointShapes(run.state), { file, tensors: values });
  const before = planSchedule({ ...meta.config, world: 1, instances: meta.instances }).stepsPerEpoch;
  const now = run.schedule.stepsPerEpoch;
  const place = (count: number) => before === now ? count : Math.round(count / before * now);
  const notes = [
    ...changes(meta.config, recordedConfig(run.config, run.state)),
    ...meta.instances === run.instances ? [] : [`${meta.instances} pictures are ${run.instances} now`],
    ...before === now ? [] : [
      `an epoch has ${now} steps, not ${before}: step ${meta.step} becomes step ${place(meta.step)}`,
    ],
  ];
  const step = place(meta.step);
  return {
    step,
    teacherLead: place(meta.teacherCounter) - step,
    values,
    notes: changed(file, notes),
  } satisfies StartingPoint as StartingPoint;
});

/**
 * A published checkpoint goes on at the beginning of an epoch, with the teacher's counter that the published code makes
 * of that (docs/method.md, section 3).
 */
const goOnPublished = Effect.fnUntraced(function* (
  { file, tensors }: WeightsFile,
  published: Published,
  run: Beginning,
) {
  const { config, state, schedule, instances } = run;
  if (published.optimizer !== null) yield* expectSameOptimizer(file, published.optimizer, run);
  const values = withLossScaleOf(state, withAllVelocities(yield* readState(tensors), state));
  yield* compareState(checkpointShapes(state), { file, tensors: values });
  const step = published.epoch * schedule.stepsPerEpoch;
  const counter = teacherCounter({ ...config, world: 1, instances }, published.epoch);
  const notes = [
    ...changes(publishedConfig(published, config.width), config),
    ...published.steps === null || published.steps === step
      ? []
      : [`it counts ${published.steps} steps, ${published.epoch} epochs have ${step} here`],
  ];
  return {
    step,
    teacherLead: counter - step,
    values,
    notes: changed(file, notes),
  } satisfies StartingPoint as StartingPoint;
});

const expectSameOptimizer = (file: string, found: string, { config, state }: Beginning) => {
  const { optimizer } = recordedConfig(config, state);
  if (found === optimizer) return Effect.void;
  const reason = `its optimiser is ${found}, whose buffers mean nothing to ${optimizer}: ` +
    `go on with ${isBuiltIn(found) ? `--optimizer ${found}` : "a step that has it"}, ` +
    `or start a new run from its weights with --init`;
  return Effect.fail(new CheckpointError({ file, action: "resume from", reason }));
};

/** Options that say where and how a run works, not what it computes. */
const INCIDENTAL: readonly OptionName[] = [
  ...["dataDir", "outputDir", "autoResume", "resume", "init", "startEpoch", "steps"] as const,
  ...["printFreq", "tensorboard", "otlp", "profile", "saveFreq", "saveSteps", "saveMinutes", "keep"] as const,
  ...["numWorkers", "maxBadImages", "device", "memoryLimit"] as const,
  ...["ranks", "allowSharedDevice", "watchdogMinutes"] as const,
];

const changes = (before: RecordedConfig, now: RecordedConfig): string[] =>
  optionNames.filter((name) => !INCIDENTAL.includes(name) && before[name] !== now[name])
    .map((name) => `--${flagName(name)} ${before[name]} is ${now[name]} now`);

/**
 * The state of a checkpoint for a run that may have another precision: a loss scale that it lacks is initial, one that the
 * run does not want is left out.
 */
export const withLossScaleOf = (state: StateBuilder, values: StateValues): StateValues => {
  const isScaler = (name: string) => name.startsWith("scaler.");
  const kept = [...values].filter(([name]) => !isScaler(name) || state.declared.has(name));
  const initial = [...initialState(state, 0)].filter(([name]) => isScaler(name) && !values.has(name));
  return new Map([...kept, ...initial]);
};

const changed = (file: string, notes: readonly string[]): string[] =>
  notes.length === 0 ? [] : [`This run differs from the one in "${file}": ${notes.join("; ")}`];

// --- Weights ---

const MODULES = ["encoder", "projector", "grouping", "predictor_slot", "center"] as const;

/**
 * Initial values with the weights of a file in their place, module by module: of a checkpoint both networks, of an encoder
 * both encoders. Fails with a `CheckpointError` where the encoder is another one; other modules start anew if they differ.
 */
const fromWeights = Effect.fnUntraced(function* (file: string, { config, state }: Beginning) {
  const { tensors, content } = yield* openWeights(file);
  const values = new Map(initialState(state, config.seed));
  const names = [...values.keys()].filter((name) => !name.startsWith("optimizer."));
  const [taken, anew]: string[][] = [[], []];
  for (const module of MODULES) {
    const own = names.filter((name) => name.startsWith(module));
    const found = new Map<string, StateTensor>();
    const problems: string[] = [];
    for (const name of own) {
      const tensor = tensorFor(name, tensors, content.kind === "encoder");
      const { shape } = values.get(name)!;
      if (tensor === undefined) {
        if (!name.endsWith("num_batches_tracked")) problems.push(`it has no ${name}`); // older files lack the counters
      } else if (!sameShape(tensor.shape, shape)) {
        problems.push(`${name} is [${tensor.shape.join(", ")}], not [${shape.join(", ")}]`);
      } else found.set(name, { shape, data: widened(tensor.dtype, yield* tensor.values) });
    }
    if (problems.length === 0) {
      taken.push(module);
      for (const [name, tensor] of found) values.set(name, tensor);
    } else if (module === "encoder") {
      const reason = `its encoder is not this run's (--arch, --width): ${problems.slice(0, 3).join("; ")}`;
      return yield* new CheckpointError({ file, action: "start from", reason });
    } else anew.push(module);
  }
  const rest = anew.length === 0
    ? ""
    : `; what it has not, or of another shape, starts anew: ${anew.join(", ")}`;
  return { values: values as StateValues, notes: [`Weights from "${file}": ${taken.join(", ")}${rest}`] };
}, Effect.scoped);

/** A file that has only one of the two networks gives its weights to both. */
const tensorFor = (name: string, tensors: ReadonlyMap<string, StoredTensor>, encoderAlone: boolean) =>
  encoderAlone ? tensors.get(name.replace(/^encoder_[qk]\./, "")) : tensors.get(name) ??
    tensors.get(name.replace(/^(\w+)_([qk])\./, (_, m, s) => `${m}_${s === "q" ? "k" : "q"}.`));
