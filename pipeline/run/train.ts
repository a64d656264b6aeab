/**
 * The loop that trains, whatever it trains: batches ▶ submit ▶ read, one step late ▶ record ▶ show ▶ save.
 *
 * A task (pipeline/pretrain/pretrain.ts) says what is in a batch, which program runs it with which inputs, and what a
 * checkpoint needs to know. Reports, checkpoints, profiles, ranks and stopping are the same for all tasks.
 */
import { Data, Deferred, Effect, Fiber, Option, type Scope, Stream } from "effect";
import type { EncodedPicture } from "../../data/formats/tfevents.ts";
import { release } from "../../data/images/release.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { Collective, type CollectiveError } from "../../ops/runtime/collective.ts";
import { Gpu, type GpuError } from "../../ops/runtime/gpu.ts";
import type { DeviceState, Program, Upload } from "../../ops/runtime/program.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import type { StepBatch } from "./batch.ts";
import { writtenBytes } from "./bytes.ts";
import type { CheckpointError, RunMeta, Task } from "./checkpoint_file.ts";
import { type Checkpoints, checkpoints, noCheckpoints } from "./checkpoint_stage.ts";
import { expectFinite, type NonFiniteGradientsError, type NonFiniteLossError } from "./divergence.ts";
import type { RunConfig } from "./options.ts";
import { StageSpan } from "./otlp.ts";
import { type PhaseTimer, phaseTimer } from "./phase_timer.ts";
import { noProfile, type Profile, profileOf } from "./profile.ts";
import { type Metrics, Progress, type RunPlan, type StepReport } from "./progress.ts";
import { anyRankStops, type RanksDifferError, replicaCheck } from "./replicas.ts";
import type { StartingPoint } from "./resume.ts";
import { openRankFolder, openRunFolder, type RunFolder, type RunFolderError } from "./run_folder.ts";
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
  /** The metadata of a checkpoint after so many steps. */
  readonly meta: (done: number) => Meta;
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
  | RanksDifferError
  | RunFolderError
  | CheckpointError
  | PlanError
  | GpuError
  | CollectiveError;

/**
 * Trains from the start to the last step, and returns how many steps are done. An interruption lets the current step
 * finish and saves a checkpoint before it stops. With several ranks every rank trains on its share of each batch; rank
 * 0 writes checkpoints and the run's folder.
 */
export const train: <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  training: Training<Batch, Meta, E, R>,
) => Effect.Effect<number, E | TrainError, R | Gpu | Scope.Scope> = Effect.fnUntraced(function* (training) {
  const { start, lastStep, state, buffers, observer } = training;
  const { world, barrier } = yield* Collective;
  const progress = yield* Progress;
  const span = yield* StageSpan;
  const expectSameBits = yield* replicaCheck(state, buffers);
  const plan = yield* planOf(training);
  const open = yield* opened(training, plan);
  const { folder, profile, saving, time } = open;
  const submit = submitting(training, open, expectSameBits);
  const read = reading(training, open);

  let done = start.step;
  let saved = start.step;
  const save = (copy: StateCopy) => {
    saved = done;
    return saving.save(training.meta(done), copy);
  };
  const show = (done: number) => (images: Images) => folder.images(done, images);

  const steps = (stop: Deferred.Deferred<void>) =>
    training.batches.pipe(
      Stream.take(lastStep - start.step),
      world === 1 ? Stream.interruptWhen(Deferred.await(stop)) : untilAnyStops(Deferred.isDone(stop)),
      Stream.mapEffect((batch) => submit(batch).pipe(span("submit", batch.step))),
      oneBehind,
      Stream.mapEffect((submitted) => read(submitted).pipe(span("read", submitted.batch.step))),
      Stream.tap(({ report }) => folder.record(report)),
      Stream.tap(({ report }) => progress.step(report)),
      Stream.tap(({ report }) => profile.step(report)),
      Stream.tap(({ report, images }) =>
        images === null ? Effect.void : Effect.flatMap(images, show(report.step + 1))
      ),
      Stream.tap(({ report, copy }) => {
        time.mark("report");
        done = report.step + 1;
        return copy === null
          ? Effect.void
          : save(copy).pipe(Effect.tap(Effect.sync(() => time.mark("checkpoint"))));
      }),
      Stream.runDrain,
      // After an interruption: the device has done exactly the steps that were read.
      Effect.andThen(
        Effect.suspend(() => done === saved ? Effect.void : Effect.flatMap(snapshot(state, buffers), save)),
      ),
      Effect.andThen(saving.settled),
      Effect.andThen(barrier), // the files of rank 0 are there for all ranks
    );

  yield* Effect.gen(function* () {
    yield* announce(training);
    yield* progress.begin(plan);
    if (start.step === 0 && observer !== null) {
      yield* Effect.flatMap(Effect.flatten(observer.observe(0)), show(0));
    }
    time.mark("report"); // the wait for the first batch comes next
    yield* gracefully(steps);
  }).pipe(Effect.withLogger(folder.logger));
  return done;
});

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
}

const opened = Effect.fnUntraced(function* <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { task, config, program }: Training<Batch, Meta, E, R>,
  plan: RunPlan,
) {
  const { rank } = yield* Collective;
  const folder = rank === 0 ? yield* openRunFolder(config, plan) : yield* openRankFolder(config, rank);
  const profile = config.profile && rank === 0
    ? yield* profileOf({ task: task.name, outputDir: config.outputDir, ...plan }, program)
    : noProfile;
  const saving = rank === 0
    ? yield* profile.withSaves(checkpoints(task, { ...config, ...plan }, folder.flush))
    : noCheckpoints;
  return { folder, profile, saving, time: phaseTimer(profile.mark) } satisfies Opened<Meta> as Opened<Meta>;
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
    if (start.step >= lastStep) yield* Effect.logInfo(`all ${lastStep} steps are done already`);
  },
);

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

/** Steps between two checks that all ranks hold the same bits. */
const CHECKED_EVERY = 100;

/**
 * Submits a step asynchronously; the following stages read the results of the previous step meanwhile. What needs the
 * state as it is after this step, a checkpoint or an image, is copied or submitted here, before the next step changes
 * it.
 */
const submitting = <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { state, buffers, step, observer }: Training<Batch, Meta, E, R>,
  { profile, saving, time }: Opened<Meta>,
  expectSameBits: Effect.Success<ReturnType<typeof replicaCheck>>,
) =>
  Effect.fnUntraced(function* (batch: Batch) {
    time.mark("decode");
    profile.batch(batch);
    const { program, uploads, reported } = yield* step(batch);
    const { device, exchange } = program.spent;
    const outputs = yield* profile.run(batch.step, program, uploads);
    release(...Object.values(uploads));
    time.mark("submit", {
      device: (program.spent.device - device) / 1000,
      sync: (program.spent.exchange - exchange) / 1000,
    });
    const done = batch.step + 1;
    if (done % CHECKED_EVERY === 0) yield* expectSameBits(done);
    const copy: StateCopy | null = saving.due(done) ? yield* snapshot(state, buffers) : null;
    time.mark("checkpoint");
    const images = observer?.due(done) ? yield* observer.observe(done) : null;
    time.mark("report");
    return { batch, program, reported, outputs, copy, images };
  });

/** Awaits a step's outputs, checks that they are finite, and makes its report. */
const reading = <Batch extends StepBatch, Meta extends RunMeta, E, R>(
  { config, remedy }: Training<Batch, Meta, E, R>,
  { time }: Opened<Meta>,
) => {
  const imagesPerSecond = stopwatch(config.batchSize);
  return Effect.fnUntraced(function* (
    { batch, program, reported, outputs, copy, images }: Effect.Success<
      ReturnType<ReturnType<typeof submitting<Batch, Meta, E, R>>>
    >,
  ) {
    const read = Object.fromEntries(
      Object.entries(yield* outputs).map(([name, values]) => [name, values[0]]),
    ) as { readonly loss: number; readonly loss_scale?: number };
    yield* expectFinite(read, batch, remedy);
    time.mark("device");
    const metrics: Metrics = { ...read, ...reported, bad_images: batch.badImages };
    const report: StepReport = {
      step: batch.step,
      epoch: batch.epoch + 1,
      metrics,
      imagesPerSecond: imagesPerSecond(),
      seconds: { host: time.take(), device: program.stageSeconds() },
    };
    return { report, copy, images };
  });
};

/**
 * Images a second since the previous call, smoothed over some ten steps; the first step, which compiles, is left out.
 */
const stopwatch = (images: number) => {
  let last = performance.now();
  let steps = 0;
  let smooth = 0;
  return () => {
    const now = performance.now();
    const seconds = (now - last) / 1000;
    last = now;
    smooth = steps++ < 2 ? seconds : 0.9 * smooth + 0.1 * seconds;
    return images / smooth;
  };
};

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

/** Runs an effect that stops when `stop` is done. An interruption does that, and waits until the effect has stopped. */
const gracefully = Effect.fnUntraced(
  function* <A, E, R>(run: (stop: Deferred.Deferred<void>) => Effect.Effect<A, E, R>) {
    const stop = yield* Deferred.make<void>();
    const running = yield* Effect.forkChild(run(stop));
    return yield* Fiber.join(running).pipe(
      Effect.onInterrupt(() => Deferred.succeed(stop, undefined).pipe(Effect.andThen(Fiber.await(running)))),
    );
  },
);
