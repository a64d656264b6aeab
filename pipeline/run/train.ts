/**
 * The loop that trains, whatever it trains: batches ▶ submit ▶ read, one step late ▶ record ▶ show ▶ save.
 *
 * A task (pipeline/pretrain/pretrain.ts) says what is in a batch, which program runs it with which inputs, and what a
 * checkpoint needs to know. Reports, checkpoints, profiles, ranks and stopping are the same for all tasks.
 */
import { join } from "node:path";
import { Cause, Data, Deferred, Effect, Exit, Fiber, Option, type Scope, Stream } from "effect";
import type { EncodedPicture } from "../../data/formats/tfevents.ts";
import { release } from "../../data/images/release.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { Collective, type CollectiveError } from "../../ops/runtime/collective.ts";
import { Gpu, type GpuError } from "../../ops/runtime/gpu.ts";
import type { DeviceState, Program, Upload } from "../../ops/runtime/program.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { TooManyBadImagesError } from "./bad_images.ts";
import type { StepBatch } from "./batch.ts";
import { writtenBytes } from "./bytes.ts";
import type { CheckpointError, RunMeta, Task } from "./checkpoint_file.ts";
import { type Checkpoints, checkpoints, noCheckpoints } from "./checkpoint_stage.ts";
import { explained } from "./advice.ts";
import {
  expectFinite,
  type NonFiniteGradientsError,
  type NonFiniteLossError,
  type NonFiniteStateError,
} from "./divergence.ts";
import type { RunConfig } from "./options.ts";
import { StageSpan } from "./otlp.ts";
import { type PhaseTimer, phaseTimer } from "./phase_timer.ts";
import { noProfile, type Profile, profileOf } from "./profile.ts";
import { type Metrics, preparing, Progress, type RunPlan, type StepReport } from "./progress.ts";
import {
  anyRankStops,
  expectSameEnd,
  type OtherRankError,
  type RanksDifferError,
  replicaCheck,
} from "./replicas.ts";
import type { StartingPoint } from "./resume.ts";
import { openRankFolder, openRunFolder, type RunFolder, type RunFolderError } from "./run_folder.ts";
import type { Ending, FolderInUseError, FolderLock } from "./run_status.ts";
import { snapshot } from "./state.ts";

/** What a task hands to the loop. */
export interface Training<Batch extends StepBatch, Meta extends RunMeta, E, R> {
  /** The task, for its checkpoints. */
  readonly task: Task<Meta>;
  /** The options of the run; the run's folder keeps all of them. */
  readonly config: RunConfig;
  /** Images of the data set. */
  readonly images: number;
  /** Where the run begins. */
  readonly start: StartingPoint;
  /** The lock of the run's folder, where the task has taken it already, as one that looks for checkpoints does. */
  readonly lock?: FolderLock;
  /** Steps from one epoch to the next. */
  readonly stepsPerEpoch: number;
  /** Steps that will be done at the end. */
  readonly lastStep: number;
  /** The state, as its step declares it. */
  readonly state: StateBuilder;
  /** The state on the device, which the program of every step updates. */
  readonly buffers: DeviceState;
  /** The program whose memory and kernels the run's plan describes. */
  readonly program: Program;
  /** Bytes of device memory that the run reserves besides, by their use. */
  readonly memoryBesides: Readonly<Record<string, number>>;
  /** Batches in the order of their steps, from the start's step on. The loop takes as many as it needs. */
  readonly batches: Stream.Stream<Batch, E, R>;
  /** The step of a batch. A task with programs for several shapes may compile one here. */
  readonly step: (batch: Batch) => Effect.Effect<StepInputs, PlanError | GpuError>;
  /** What to change where the loss is not finite: "lower --base-lr". */
  readonly remedy: string;
  /** The metadata of a checkpoint after so many steps; `score` is that of the validation of this state, if there was one. */
  readonly meta: (done: number, score: number | null) => Meta;
  /** Scores the state now and then; not given where nothing does. */
  readonly validation?: Validation<E>;
  /** Looks at the state now and then; null where nothing does. */
  readonly observer: Observer | null;
}

/** How a batch becomes a step. */
export interface StepInputs {
  /** The program that runs the step. */
  readonly program: Program;
  /** Its inputs. Their arrays are empty after the step is submitted: the loop gives their memory back. */
  readonly uploads: Readonly<Record<string, Upload>>;
  /** What the step's metrics are to say of the host's inputs, the learning rate `lr` among them. */
  readonly reported: { readonly lr: number; readonly [name: string]: number };
}

/** Looks at the state of a run now and then, and shows what it sees as images. */
export interface Observer {
  /** Whether to look after `done` steps. */
  readonly due: (done: number) => boolean;
  /**
   * Submits work on the state as it is after `done` steps. The inner effect waits for its results and makes images of
   * them, by name.
   */
  readonly observe: (
    done: number,
  ) => Effect.Effect<Effect.Effect<Images, GpuError>, GpuError | CollectiveError>;
}

/** Scores the state of a run now and then, on images that it does not train on. The checkpoint of the best score is kept. */
export interface Validation<E> {
  /** The best score so far, of the run that this one goes on with; null where there is none. */
  readonly best: number | null;
  /** Whether to score the state after `done` steps. */
  readonly due: (done: number) => boolean;
  /** Scores the state on the device, which is that after `done` steps. All ranks call it at the same step. */
  readonly score: (done: number) => Effect.Effect<Validated, E | GpuError | PlanError | CollectiveError>;
}

/** How good a state is. */
export interface Validated {
  /** Decides which checkpoint is the best: the higher, the better. */
  readonly score: number;
  /** Finite numbers to be reported with those of the step. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Images to be shown. */
  readonly images: Images;
}

/** Images by name. */
export type Images = ReadonlyMap<string, EncodedPicture>;

/** The ranks cannot share a batch evenly. */
export class UnevenBatchError extends Data.Error<{
  readonly batchSize: number;
  readonly world: number;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "UnevenBatchError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `--batch-size ${this.batchSize} cannot be shared by ${this.world} ranks: expected a multiple of ${this.world}`;
  }
}

/**
 * The images of a batch that each of `world` ranks takes. Fails with an `UnevenBatchError` where that is no whole
 * number.
 */
export const rankBatchSize = (batchSize: number, world: number): Effect.Effect<number, UnevenBatchError> =>
  batchSize % world === 0
    ? Effect.succeed(batchSize / world)
    : Effect.fail(new UnevenBatchError({ batchSize, world }));

/** How training can fail, besides the task's batches. */
export type TrainError =
  | NonFiniteLossError
  | NonFiniteGradientsError
  | NonFiniteStateError
  | RanksDifferError
  | OtherRankError
  | FolderInUseError
  | RunFolderError
  | CheckpointError
  | PlanError
  | GpuError
  | CollectiveError;

/**
 * Trains from the start to the last step, and returns how many steps are done. An interruption lets the current step
 * finish and saves a checkpoint before it stops; so does a failure that leaves the state sound, such as that of the
 * batches or of a validation. With several ranks every rank trains on its share of each batch; rank 0 writes checkpoints and the run's
 * folder. Where all steps are done already, nothing is written.
 */
export const train: <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  training: Training<Batch, Meta, E, R>,
) => Effect.Effect<number, E | TrainError, R | Gpu | Scope.Scope> = Effect.fnUntraced(
  function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(training: Training<Batch, Meta, E, R>) {
    const { start, lastStep, state, buffers } = training;
    const { world, barrier } = yield* Collective;
    const progress = yield* Progress;
    const span = yield* StageSpan;
    const plan = yield* planOf(training);
    if (start.step >= lastStep) {
      yield* announce(training);
      return start.step;
    }
    const expectSameBits = yield* replicaCheck(state, buffers);
    const open = yield* opened(training, plan);
    const { folder, profile, saving, time } = open;
    const stop = yield* Deferred.make<void>();
    const failure = soundFailure<E | RunFolderError | GpuError | PlanError | CollectiveError>(stop);
    const submit = submitting(training, open, expectSameBits, { world, stop, failure });
    const read = reading(training, open);

    let done = start.step;
    let saved = start.step;
    let scored: number | null = null; // the score of the state after `done` steps, where it has one
    let best = training.validation?.best ?? -Infinity;
    const save = (copy: StateCopy) => {
      saved = done;
      return saving.save(training.meta(done, scored), copy);
    };
    // After an interruption, or a sound failure: the device has done exactly the steps that were read.
    const saveRest = Effect.suspend(() =>
      done === saved
        ? Effect.void
        : Effect.andThen(expectSameBits(done), Effect.flatMap(snapshot(state, buffers), save))
    );

    const steps = training.batches.pipe(
      Stream.catchCause((cause) => Stream.fromEffectDrain(endOfBatches(failure.is(cause)))),
      Stream.take(lastStep - start.step),
      world === 1 ? Stream.interruptWhen(Deferred.await(stop)) : untilAnyStops(Deferred.isDone(stop)),
      Stream.mapEffect((batch) => submit(batch).pipe(span("submit", batch.step))),
      oneBehind,
      Stream.mapEffect((submitted) => read(submitted).pipe(span("read", submitted.batch.step))),
      Stream.tap(({ report }) => failure.of(folder.record(report))),
      Stream.tap(({ report }) => failure.of(progress.step(report))),
      Stream.tap(({ report }) => failure.of(profile.step(report))),
      Stream.tap(({ report: { step }, images }) =>
        images === null ? Effect.void : show(open, step + 1, images)
      ),
      Stream.tap(({ report: { step }, validated }) =>
        validated === null || validated.images.size === 0
          ? Effect.void
          : show(open, step + 1, Effect.succeed(validated.images))
      ),
      Stream.tap(Effect.fnUntraced(function* ({ report, due, copy, validated }) {
        time.mark("report");
        done = report.step + 1;
        scored = validated?.score ?? null;
        if (due) saved = done;
        if (copy === null) return;
        const values = yield* Effect.cached(copy); // both may want them, which can be read once
        if (scored !== null && scored > best) {
          best = scored;
          yield* saving.saveBest(training.meta(done, scored), values);
        }
        if (due) yield* save(values);
        time.mark("checkpoint");
      })),
      Stream.runDrain,
      Effect.andThen(saveRest),
      // Its error has been told, and the run has one of its own.
      Effect.andThen(Effect.catchTag(saving.settled, "CheckpointError", (error) => failure.orElse(error))),
      Effect.andThen(barrier), // the files of rank 0 are there for all ranks
      Effect.andThen(Effect.suspend(() => expectSameEnd(failure.reason()))),
      Effect.andThen(failure.raise),
    );

    yield* Effect.gen(function* () {
      yield* announce(training);
      yield* progress.begin(plan);
      if (start.step === 0 && training.observer !== null) {
        yield* preparing("Looking at what the run begins with");
        const images = yield* observed(training, 0);
        if (images !== null) yield* show(open, 0, images);
      }
      yield* preparing("Waiting for the first batch and the first step");
      time.mark("report"); // the wait for the first batch comes next
      yield* gracefully(steps, stop);
    }).pipe(
      Effect.onExit((exit) =>
        Effect.andThen(folder.ended(endingOf(exit)), sayHowToGoOn(training, done, saved, exit))
      ),
      Effect.withLogger(folder.logger),
    );
    return done;
  },
);

// --- How a run ends ---

/**
 * The failure of something that leaves the state sound, after which no further step is submitted, and those that have
 * been are read and saved.
 */
const soundFailure = <E>(stop: Deferred.Deferred<void>) => {
  let failure: Cause.Cause<E> | null = null;
  const is = (cause: Cause.Cause<E>) =>
    Effect.suspend(() => {
      failure ??= cause;
      return Deferred.succeed(stop, undefined);
    });
  return {
    /** Remembers a failure, the first one. */
    is,
    /** An effect whose failure is remembered, and null in its place. */
    of: <A, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.catchCause(
        effect,
        (cause) => Cause.hasInterrupts(cause) ? Effect.failCause(cause) : Effect.as(is(cause), null),
      ),
    /** Fails with an error unless there is a failure. */
    orElse: <Other>(error: Other): Effect.Effect<void, Other> =>
      Effect.suspend(() => failure === null ? Effect.fail(error) : Effect.void),
    /** Fails with the failure, if there is one. */
    raise: Effect.suspend(() => failure === null ? Effect.void : Effect.failCause(failure)),
    /** The failure as a sentence; "" where there is none. */
    reason: () => failure === null ? "" : sentenceOf(failure),
  };
};

/** The end of a rank's batches by a failure, which all ranks learn of before they submit their next step. */
const endOfBatches = Effect.fnUntraced(function* (remember: Effect.Effect<unknown>) {
  yield* remember;
  if ((yield* Collective).world > 1) yield* anyRankStops(true);
});

const endingOf = (exit: Exit.Exit<unknown, unknown>): Ending =>
  Exit.isSuccess(exit)
    ? { kind: "finished" }
    : Cause.hasInterruptsOnly(exit.cause)
    ? { kind: "stopped" }
    : { kind: "failed", reason: sentenceOf(exit.cause) };

const sentenceOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause) as Error & { readonly _tag?: string };
  return error._tag === "GpuError" || error._tag === "PlanError"
    ? explained(error as GpuError | PlanError)
    : error.message ?? String(error);
};

/** Says of a run that has not come to its end what is saved, and which command goes on with it. */
const sayHowToGoOn = Effect.fnUntraced(function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { task, config, lastStep }: Training<Batch, Meta, E, R>,
  done: number,
  saved: number,
  exit: Exit.Exit<unknown, unknown>,
) {
  if (Exit.isSuccess(exit) && done >= lastStep || saved === 0 || saved !== done) return;
  if (done >= lastStep) return yield* Effect.logInfo(`All ${lastStep} steps are done and saved`);
  const file = join(config.outputDir, "config.json");
  yield* Effect.logInfo(
    `${done} of ${lastStep} steps are done and saved. To go on: slotcon ${task.name} --config ${
      quoted(file)
    } --auto-resume`,
  );
});

/** A path as a shell's word. */
const quoted = (path: string) => /^[\w./~:@%+=-]+$/.test(path) ? path : `'${path.replaceAll("'", `'\\''`)}'`;

// --- Before the first step ---

const planOf = Effect.fnUntraced(
  function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(training: Training<Batch, Meta, E, R>) {
    const { config, start, lastStep, stepsPerEpoch, program, memoryBesides } = training;
    const plan: RunPlan = {
      firstStep: start.step,
      lastStep,
      stepsPerEpoch,
      batchSize: config.batchSize,
      printFreq: config.printFreq,
      deviceBytes: Object.values(memoryBesides).reduce((sum, bytes) => sum + bytes, program.plan.total),
      memory: { ...program.plan.groups, ...memoryBesides },
      recomputed: program.recomputed,
      device: (yield* Gpu).report.description,
      kernels: Object.fromEntries(
        program.choices.map(({ work, chosen, tuned }) => [work, tuned ? `${chosen} (tuned)` : chosen]),
      ),
    };
    for (const [work, kernel] of Object.entries(plan.kernels)) yield* Effect.logDebug(`${work}: ${kernel}`);
    return plan;
  },
);

/** What a run writes to and measures with, until the scope ends. */
interface Opened<Meta extends RunMeta> {
  readonly folder: RunFolder;
  readonly profile: Profile;
  readonly saving: Checkpoints<Meta>;
  readonly time: PhaseTimer;
  readonly speed: Speed;
}

const opened = Effect.fnUntraced(function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { task, config, start, lock, program }: Training<Batch, Meta, E, R>,
  plan: RunPlan,
) {
  const { rank } = yield* Collective;
  const folder = rank === 0
    ? yield* openRunFolder(config, plan, { goesOnWith: start.goesOnWith, lock })
    : yield* openRankFolder(config, rank);
  const profile = config.profile && rank === 0
    ? yield* profileOf({ task: task.name, outputDir: config.outputDir, ...plan }, program)
    : noProfile;
  const saving = rank === 0
    ? yield* profile.withSaves(checkpoints(task, { ...config, ...plan }, folder.flush))
    : noCheckpoints;
  const [time, speed] = [phaseTimer(profile.mark), speedometer(config.batchSize)];
  return { folder, profile, saving, time, speed } satisfies Opened<Meta> as Opened<Meta>;
});

/** Logs what a run is about to do, and what the user should know of it. */
const announce = Effect.fnUntraced(
  function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(training: Training<Batch, Meta, E, R>) {
    const { config, images, start, stepsPerEpoch, lastStep, program } = training;
    const { report } = yield* Gpu;
    const { world } = yield* Collective;
    yield* Effect.logInfo(`${images} pictures, ${stepsPerEpoch} steps an epoch, on ${report.description}`);
    yield* Effect.logInfo(memorySentence(program));
    if (world > 1) {
      yield* Effect.logInfo(
        `${world} ranks, ${
          config.batchSize / world
        } pictures a step each; a step stops ${program.syncPoints} times for ` +
          `what they exchange (${program.exchanges} tensors)`,
      );
    }
    if (report.software) {
      yield* Effect.logWarning(
        "this adapter is a CPU: fine for trying things out, far too slow for real runs",
      );
    }
    for (const note of start.notes) yield* Effect.logWarning(note);
    if (start.step >= lastStep) {
      yield* Effect.logInfo(
        start.step === lastStep
          ? `all ${lastStep} steps are done already`
          : `all ${lastStep} steps are done already, and ${start.step - lastStep} more`,
      );
    } else if (start.step > 0) {
      yield* Effect.logInfo(`Going on after step ${start.step} of ${lastStep}${from(start)}`);
    }
  },
);

const from = ({ file }: StartingPoint) => file === undefined ? "" : `, from ${file}`;

/** The device memory that a run reserves before its first step and until its end. */
const memorySentence = ({ plan: { groups, total }, recomputed }: Program): string => {
  const parts = Object.entries(groups).filter(([, bytes]) => bytes > 0)
    .map(([group, bytes]) => `${group} ${writtenBytes(bytes)}`);
  const { bytes, work } = recomputed;
  const twice = bytes === 0
    ? ""
    : `; ${writtenBytes(bytes)} are computed twice, about ${(100 * work).toPrecision(2)} % more work`;
  return `${writtenBytes(total)} of device memory: ${parts.join(", ")} at the peak${twice}`;
};

// --- A step ---

/** A copy of the state on the device; the effect brings it to the host. */
type StateCopy = Effect.Success<ReturnType<typeof snapshot>>;

/** Steps between two checks that all ranks hold the same bits; they are also compared after a process's first step, and before every save. */
const CHECKED_EVERY = 100;

/**
 * Submits a step asynchronously; the following stages read the results of the previous step meanwhile. What needs the
 * state as it is after this step, a checkpoint or an image, is copied or submitted here, before the next step changes
 * it.
 */
const submitting = <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  training: Training<Batch, Meta, E, R>,
  { profile, saving, time, speed }: Opened<Meta>,
  expectSameBits: Effect.Success<ReturnType<typeof replicaCheck>>,
  { world, stop, failure }: {
    readonly world: number;
    readonly stop: Deferred.Deferred<void>;
    readonly failure: ReturnType<typeof soundFailure<E | GpuError | PlanError | CollectiveError>>;
  },
) => {
  const { state, buffers, observer, validation } = training;
  // Several ranks finish a validation that all of them have begun; one alone may leave it. Too many bad images are too
  // many for all ranks alike; any other failure of one of several ranks ends them all.
  const validated = (done: number) => {
    if (validation === undefined || !validation.due(done)) return Effect.succeed(null);
    const score = validation.score(done);
    if (world === 1) return failure.of(Effect.raceFirst(score, Effect.as(Deferred.await(stop), null)));
    return Effect.catchCause(
      score,
      (cause) =>
        Cause.squash(cause) instanceof TooManyBadImagesError
          ? Effect.as(failure.is(cause), null)
          : Effect.failCause(cause),
    );
  };
  let isFirst = true;
  return Effect.fnUntraced(function* (batch: Batch) {
    const { rank } = yield* Collective;
    time.mark("decode");
    const begin = performance.now();
    profile.batch(batch);
    const { program, uploads, reported } = yield* training.step(batch);
    const { device, exchange } = program.spent;
    const outputs = yield* profile.run(batch.step, program, uploads);
    release(...Object.values(uploads));
    time.mark("submit", {
      device: (program.spent.device - device) / 1000,
      sync: (program.spent.exchange - exchange) / 1000,
    });
    const done = batch.step + 1;
    const own = saving.due(done); // of rank 0 alone, which saves
    const due = world === 1 ? own : yield* anyRankStops(own);
    if (due || isFirst || done % CHECKED_EVERY === 0) yield* expectSameBits(done);
    isFirst = false;
    time.mark("checkpoint");
    const validating = performance.now();
    const scores = yield* validated(done);
    speed.pause(performance.now() - validating);
    time.mark("validate");
    const copy: StateCopy | null = own || scores !== null && rank === 0
      ? yield* snapshot(state, buffers)
      : null;
    time.mark("checkpoint");
    const images = observer?.due(done) ? yield* observed(training, done) : null;
    time.mark("report");
    return { batch, begin, program, reported, outputs, due, copy, images, validated: scores };
  });
};

/** Awaits a step's outputs, checks that they are finite, and makes its report. */
const reading = <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { remedy }: Training<Batch, Meta, E, R>,
  { time, speed }: Opened<Meta>,
) =>
  Effect.fnUntraced(function* (
    { batch, begin, program, reported, outputs, due, copy, images, validated }: Effect.Success<
      ReturnType<ReturnType<typeof submitting<Batch, Meta, E, R>>>
    >,
  ) {
    const read = Object.fromEntries(
      Object.entries(yield* outputs).map(([name, values]) => [name, values[0]]),
    ) as { readonly loss: number; readonly loss_scale?: number };
    yield* expectFinite(read, batch, remedy);
    time.mark("device");
    const metrics: Metrics = { ...read, ...reported, bad_images: batch.badImages, ...validated?.metrics };
    const report: StepReport = {
      step: batch.step,
      epoch: batch.epoch + 1,
      metrics,
      imagesPerSecond: speed.imagesPerSecond(begin),
      seconds: { host: time.take(), device: program.stageSeconds() },
    };
    return { report, due, copy, images, validated };
  });

/** How fast a run trains. */
interface Speed {
  /**
   * Images a second since the previous call, smoothed over some ten steps. The time of the first step begins when its
   * batch is there (`begin`, in milliseconds): what comes before is done once a process, not once a step.
   */
  readonly imagesPerSecond: (begin: number) => number;
  /** Leaves out so many milliseconds, in which the run did not train. */
  readonly pause: (milliseconds: number) => void;
}

const speedometer = (images: number): Speed => {
  let last: number | null = null;
  let paused = 0;
  let steps = 0;
  let smooth = 0;
  return {
    imagesPerSecond: (begin) => {
      const now = performance.now();
      const seconds = (now - (last ?? begin) - paused) / 1000;
      [last, paused] = [now, 0];
      smooth = steps++ < 2 ? seconds : 0.9 * smooth + 0.1 * seconds;
      return images / smooth;
    },
    pause: (milliseconds) => void (paused += milliseconds),
  };
};

/** What an observer sees after `done` steps, on its way; null where nothing does, or the observer fails. */
const observed = <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { observer }: Training<Batch, Meta, E, R>,
  done: number,
) =>
  observer === null ? Effect.succeed(null) : observer.observe(done).pipe(
    Effect.catch((error) => Effect.as(withoutImages(done, error), null)),
  );

/** Records what an observer sees, once it is there. */
const show = (
  { folder }: Pick<Opened<RunMeta>, "folder">,
  done: number,
  images: Effect.Effect<Images, GpuError>,
) =>
  Effect.flatMap(images, (images) => folder.images(done, images)).pipe(
    Effect.catch((error) => withoutImages(done, error)),
  );

const withoutImages = (done: number, error: Error & { readonly _tag?: string }) =>
  Effect.logWarning(
    `What the run looks like after ${done} steps is not shown: ${
      sentenceOf(Cause.fail(error))
    }. The run goes on`,
  );

// --- Streams ---

/** Goes on until any rank is to stop: all ranks stop before the same step. */
const untilAnyStops = (stopRequested: Effect.Effect<boolean>) => <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  stream.pipe(
    Stream.mapEffect((batch) =>
      Effect.map(Effect.flatMap(stopRequested, anyRankStops), (stops) => stops ? [] : [batch])
    ),
    Stream.takeWhile((batch) => batch.length > 0),
    Stream.flattenIterable,
  );

/** Emits every element when the next one arrives, and the last one at the end. */
const oneBehind = <A, E, R>(stream: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
  stream.pipe(
    Stream.map(Option.some),
    Stream.concat(Stream.succeed(Option.none<A>())),
    Stream.mapAccum(() => Option.none<A>(), (previous, next) => [next, Option.toArray(previous)]),
  );

/**
 * Runs an effect that stops when `stop` is done. An interruption does that, says so, and waits until the effect has
 * stopped.
 */
const gracefully = Effect.fnUntraced(
  function* <A, E, R>(run: Effect.Effect<A, E, R>, stop: Deferred.Deferred<void>) {
    const running = yield* Effect.forkChild(run);
    return yield* Fiber.join(running).pipe(
      Effect.onInterrupt(() =>
        Effect.logInfo("Stopping: the current step is finished and saved first").pipe(
          Effect.andThen(Deferred.succeed(stop, undefined)),
          Effect.andThen(Fiber.await(running)),
          Effect.tap((exit) => Exit.isFailure(exit) ? Effect.logError(sentenceOf(exit.cause)) : Effect.void),
        )
      ),
    );
  },
);
