/** Pretraining: the whole dataflow, from a list of pictures to checkpoints. */
import { Deferred, Effect, Fiber, Option, Schema, Stream } from "effect";
import type { EncodedPicture } from "../../data/formats/tfevents.ts";
import { release } from "../../data/images/release.ts";
import { Collective } from "../../ops/runtime/collective.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { compile, type Program } from "../../ops/runtime/program.ts";
import { learningRate, planSchedule, teacherMomentum } from "../optim/schedule.ts";
import { acrossRanks } from "../ranks/sync.ts";
import { writtenBytes } from "../run/bytes.ts";
import { checkpoints, noCheckpoints } from "../run/checkpoint_stage.ts";
import { exported, StageSpan } from "../run/otlp.ts";
import { phaseTimer } from "../run/phase_timer.ts";
import { noProfile, profileOf } from "../run/profile.ts";
import { Progress, type RunPlan } from "../run/progress.ts";
import { anyRankStops, broadcastStart, expectSameImages, replicaCheck } from "../run/replicas.ts";
import { openRankFolder, openRunFolder } from "../run/run_folder.ts";
import { snapshot, upload } from "../run/state.ts";
import type { Config } from "./config.ts";
import { type Batch, batches, BatchTooLargeError } from "./decode.ts";
import { startingPoint } from "./resume.ts";
import { slotPictureBytes, slotPictures } from "./slot_pictures.ts";
import { type StepBuilder, stepGraph } from "./step_graph.ts";
import { PRETRAIN, recordedConfig } from "./task.ts";

/** The loss is no number any more: the run cannot go on from here. */
export class NonFiniteLossError extends Schema.TaggedError<NonFiniteLossError>()("NonFiniteLoss", {
  step: Schema.Int,
  loss: Schema.Number,
  images: Schema.Array(Schema.String),
}) {
  override get message() {
    return `The loss of step ${this.step} is ${this.loss}: lower --base-lr or raise --warmup-epoch, and go on from the ` +
      `last checkpoint with --auto-resume. The pictures of that step: ${this.images.join(", ")}`;
  }
}

/** However small the loss is scaled, gradients are not finite in half precision. */
export class NonFiniteGradientsError
  extends Schema.TaggedError<NonFiniteGradientsError>()("NonFiniteGradients", {
    step: Schema.Int,
    scale: Schema.Number,
  }) {
  override get message() {
    return `The gradients of step ${this.step} are not finite, as those of the steps before, though the loss scale is down ` +
      `to ${this.scale}: go on from the last checkpoint with --auto-resume and --precision f32, or a lower --base-lr`;
  }
}

/** A loss scale that no run needs: gradients have long vanished. */
const LEAST_SCALE = 2 ** -14;

/** The ranks cannot share a batch evenly. */
export class UnevenBatchError extends Schema.TaggedError<UnevenBatchError>()("UnevenBatch", {
  batchSize: Schema.Int,
  world: Schema.Int,
}) {
  override get message() {
    return `--batch-size ${this.batchSize} cannot be shared by ${this.world} ranks: expected a multiple of ${this.world}`;
  }
}

/** Steps between two checks that all ranks hold the same bits. */
const CHECKED_EVERY = 100;

/**
 * Pretrains on `images` (paths) as `config` says, into its output folder. Goes on from a checkpoint where the
 * configuration asks for it. Interrupted, it finishes the step, saves a checkpoint, and only then stops. Returns how
 * many steps are done.
 *
 * Of several ranks (ops/collective.ts) each works on its part of every batch; the first one reads and writes checkpoints
 * and the run's folder.
 *
 * Fails with NonFiniteLoss, NonFiniteGradients, TooManyBadImages, BatchTooLarge, UnevenBatch, RanksDiffer,
 * CheckpointError, FormatError, RunFolderError, PlanError, GpuError or CollectiveError.
 */
export const pretrain = Effect.fnUntraced(function* (
  config: Config,
  images: readonly string[],
  build?: StepBuilder,
) {
  const gpu = yield* Gpu;
  const progress = yield* Progress;
  const span = yield* StageSpan;
  const schedule = planSchedule({ ...config, world: 1, instances: images.length });
  if (schedule.stepsPerEpoch === 0) {
    return yield* new BatchTooLargeError({ batchSize: config.batchSize, images: images.length });
  }
  const { rank, world, barrier } = yield* Collective;
  if (config.batchSize % world !== 0) {
    return yield* new UnevenBatchError({ batchSize: config.batchSize, world });
  }
  yield* expectSameImages(images);
  const own = { ...config, batchSize: config.batchSize / world };
  const { packing, state: declared, graph } = stepGraph(own, gpu.traits, build, acrossRanks(rank, world));
  const beginning = { config, state: declared, schedule, instances: images.length };
  const start = yield* broadcastStart(startingPoint(beginning), declared, config.seed);
  const state = yield* upload(declared, start.values);
  const memoryTaken = config.memoryLimit === null ? 0 : slotPictureBytes(own, gpu.traits);
  const program = yield* compile({ ...graph, memoryTaken }, state);
  const expectSameBits = yield* replicaCheck(declared, state);

  const lastStep = Math.min(schedule.totalSteps, config.steps ?? Infinity);
  const slotMaps = rank === 0
    ? yield* slotPictures(own, images, { state: declared, buffers: state, lastStep })
    : null;
  const slotBytes = slotMaps?.deviceBytes ?? 0;
  const plan: RunPlan = {
    firstStep: start.step,
    lastStep,
    stepsPerEpoch: schedule.stepsPerEpoch,
    batchSize: config.batchSize,
    printFreq: config.printFreq,
    deviceBytes: program.plan.total + slotBytes,
    memory: { ...program.plan.groups, slot_maps: slotBytes },
    recomputed: program.recomputed,
    device: gpu.report.description,
    kernels: Object.fromEntries(
      program.choices.map(({ work, chosen, tuned }) => [work, tuned ? `${chosen} (tuned)` : chosen]),
    ),
  };
  for (const [work, kernel] of Object.entries(plan.kernels)) yield* Effect.logDebug(`${work}: ${kernel}`);
  const folder = rank === 0 ? yield* openRunFolder(config, plan) : yield* openRankFolder(config, rank);
  const profile =
    yield* (config.profile && rank === 0 ? profileOf(config.outputDir, plan, program) : noProfile(program));
  const saving = rank === 0
    ? yield* profile.withSaves(checkpoints(PRETRAIN, { ...config, ...plan }, folder.flush))
    : noCheckpoints;
  const clock = stopwatch(config.batchSize);
  const time = phaseTimer(profile.lap);

  /** Hands a batch to the device; it works on it while the next stages look at the step before. */
  const submit = Effect.fnUntraced(function* (batch: Batch) {
    time.lap("decode");
    profile.batch(batch);
    const lr = learningRate(batch.step, schedule);
    const momentum = teacherMomentum(batch.step + start.teacherLead, schedule);
    const { device, exchange } = program.spent;
    const outputs = yield* profile.run(batch.step, {
      pixels: batch.pixels,
      views: batch.views,
      coords: batch.coords,
      flips: batch.flips,
      learningRate: Float32Array.of(lr),
      teacherMomentum: Float32Array.of(momentum),
    });
    release(batch.pixels, batch.views, batch.coords, batch.flips);
    time.lap("submit", {
      device: (program.spent.device - device) / 1000,
      sync: (program.spent.exchange - exchange) / 1000,
    });
    if ((batch.step + 1) % CHECKED_EVERY === 0) yield* expectSameBits(batch.step + 1);
    const copy = saving.due(batch.step + 1) ? yield* snapshot(declared, state) : null;
    time.lap("checkpoint");
    const maps = slotMaps?.due(batch.step + 1) ? yield* slotMaps.draw(batch.step + 1) : null;
    time.lap("report");
    return { batch, lr, momentum, outputs, copy, maps };
  });

  /** Waits for a step and looks at what it gave. */
  const read = Effect.fnUntraced(function* (submitted: Effect.Success<ReturnType<typeof submit>>) {
    const { batch, lr, momentum } = submitted;
    const metrics = Object.fromEntries(
      Object.entries(yield* submitted.outputs).map(([name, values]) => [name, values[0]]),
    ) as { loss: number; loss_group: number; loss_slot: number; loss_scale?: number };
    if (!Number.isFinite(metrics.loss)) {
      return yield* new NonFiniteLossError({
        step: batch.step,
        loss: metrics.loss,
        images: [...batch.images],
      });
    }
    if (metrics.loss_scale !== undefined && metrics.loss_scale < LEAST_SCALE) {
      return yield* new NonFiniteGradientsError({ step: batch.step, scale: metrics.loss_scale });
    }
    time.lap("device");
    const report = {
      step: batch.step,
      epoch: batch.epoch + 1,
      metrics: { ...metrics, lr, teacher_momentum: momentum, bad_images: batch.badImages },
      imagesPerSecond: clock(),
      seconds: { host: time.take(), device: program.stageSeconds() },
    };
    return { report, copy: submitted.copy, maps: submitted.maps };
  });

  const recorded = recordedConfig(config, declared);
  let done = start.step;
  let saved = start.step;
  const save = (copy: Effect.Success<ReturnType<typeof snapshot>>) => {
    saved = done;
    const meta = {
      step: done,
      teacherCounter: done + start.teacherLead,
      instances: images.length,
      config: recorded,
    };
    return saving.save(meta, copy);
  };

  const show = (done: number) => (slots: EncodedPicture) =>
    folder.pictures(done, new Map([["slots", slots]]));

  const training = (stop: Deferred.Deferred<void>) =>
    batches(
      images,
      { ...config, pixelCapacity: packing.capacity, maxTaps: packing.maxTaps, rank, world },
      start.step,
    )
      .pipe(
        Stream.take(lastStep - start.step),
        world === 1 ? Stream.interruptWhen(Deferred.await(stop)) : untilAnyStops(Deferred.isDone(stop)),
        Stream.mapEffect((batch) => submit(batch).pipe(span("submit", batch.step))),
        oneBehind,
        Stream.mapEffect((submitted) => read(submitted).pipe(span("read", submitted.batch.step))),
        Stream.tap(({ report }) => folder.record(report)),
        Stream.tap(({ report }) => progress.step(report)),
        Stream.tap(({ report }) => profile.step(report)),
        Stream.tap(({ report, maps }) =>
          maps === null ? Effect.void : Effect.flatMap(maps, show(report.step + 1))
        ),
        Stream.tap(({ report, copy }) => {
          time.lap("report");
          done = report.step + 1;
          return copy === null
            ? Effect.void
            : save(copy).pipe(Effect.tap(Effect.sync(() => time.lap("checkpoint"))));
        }),
        Stream.runDrain,
        // After an interruption: the device has done exactly the steps that were read.
        Effect.andThen(
          Effect.suspend(() =>
            done === saved ? Effect.void : Effect.flatMap(snapshot(declared, state), save)
          ),
        ),
        Effect.andThen(saving.settled),
        Effect.andThen(barrier), // what the first rank has written is there for all
      );

  yield* Effect.gen(function* () {
    yield* Effect.logInfo(
      `${images.length} pictures, ${schedule.stepsPerEpoch} steps an epoch, on ${gpu.report.description}`,
    );
    yield* Effect.logInfo(memorySentence(program));
    if (world > 1) {
      yield* Effect.logInfo(
        `${world} ranks, ${own.batchSize} pictures a step each; a step stops ${program.syncPoints} times for what they ` +
          `exchange (${program.exchanges} tensors)`,
      );
    }
    if (gpu.report.software) {
      yield* Effect.logWarning(
        "this adapter is a CPU: fine for trying things out, far too slow for real runs",
      );
    }
    for (const note of start.notes) yield* Effect.logWarning(note);
    if (start.step >= lastStep) yield* Effect.logInfo(`all ${lastStep} steps are done already`);
    yield* progress.begin(plan);
    if (start.step === 0 && slotMaps !== null) {
      yield* Effect.flatMap(Effect.flatten(slotMaps.draw(0)), show(0));
    }
    time.lap("report"); // what comes next is the wait for the first pictures
    yield* gracefully(training);
  }).pipe(Effect.withLogger(folder.logger));
  return done;
}, exported);

/** What a run reserves on the device, before its first step and until its end. */
const memorySentence = ({ plan: { groups, total }, recomputed }: Program): string => {
  const parts = Object.entries(groups).filter(([, bytes]) => bytes > 0)
    .map(([group, bytes]) => `${group} ${writtenBytes(bytes)}`);
  const { bytes, work } = recomputed;
  const twice = bytes === 0
    ? ""
    : `; ${writtenBytes(bytes)} are computed twice, about ${(100 * work).toPrecision(2)} % more work`;
  return `${writtenBytes(total)} of device memory: ${parts.join(", ")} at the peak${twice}`;
};

/** Goes on until any rank is to stop: ranks must not part ways within a step. */
const untilAnyStops = (told: Effect.Effect<boolean>) => <A, E, R>(stream: Stream.Stream<A, E, R>) =>
  stream.pipe(
    Stream.mapEffect((batch) =>
      Effect.map(Effect.flatMap(told, anyRankStops), (stops) => stops ? [] : [batch])
    ),
    Stream.takeWhile((batch) => batch.length > 0),
    Stream.flattenIterable,
  );

/** Hands every element on when the next one is there, and the last one at the end. */
const oneBehind = <A, E, R>(stream: Stream.Stream<A, E, R>): Stream.Stream<A, E, R> =>
  stream.pipe(
    Stream.map(Option.some),
    Stream.concat(Stream.succeed(Option.none<A>())),
    Stream.mapAccum(() => Option.none<A>(), (previous, next) => [next, Option.toArray(previous)]),
  );

/** Runs an effect that stops when told to; an interruption tells it and waits until it has. */
const gracefully = Effect.fnUntraced(
  function* <A, E, R>(run: (stop: Deferred.Deferred<void>) => Effect.Effect<A, E, R>) {
    const stop = yield* Deferred.make<void>();
    const running = yield* Effect.forkChild(run(stop));
    return yield* Fiber.join(running).pipe(
      Effect.onInterrupt(() => Deferred.succeed(stop, undefined).pipe(Effect.andThen(Fiber.await(running)))),
    );
  },
);

/** Pictures a second since the last call, evened out over some ten steps; the first step, which compiles, says little. */
const stopwatch = (pictures: number) => {
  let last = performance.now();
  let steps = 0;
  let smooth = 0;
  return () => {
    const now = performance.now();
    const seconds = (now - last) / 1000;
    last = now;
    smooth = steps++ < 2 ? seconds : 0.9 * smooth + 0.1 * seconds;
    return pictures / smooth;
  };
};
