/** Where the time of a few steps goes, kernel by kernel (`--profile`): a table in the log, and a trace. */
import { join } from "node:path";
import { Effect, identity, Scope } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { traceFile, type TraceSpan } from "../../data/formats/trace_events.ts";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import type { Program, TimedKernel, Upload } from "../../ops/runtime/program.ts";
import type { StepBatch } from "./batch.ts";
import { StageSpan } from "./otlp.ts";
import type { Phase } from "./phase_timer.ts";
import { opText, PHASE_WORDS, profileTables } from "./profile_tables.ts";
import type { RunPlan, StepReport } from "./progress.ts";

/** Steps before those that are profiled: drivers compile in the first one, and caches fill. */
const WARM_UP = 5;
/** Steps that are profiled. */
const PROFILED = 3;

/** The profile of a run that is under way. */
export interface Profile {
  /** Notes a phase of the run's thread, with its begin and end in milliseconds. */
  readonly mark: (phase: Phase, begin: number, end: number) => void;
  /** Notes when a batch was made. */
  readonly batch: (batch: StepBatch) => void;
  /** Runs the program of a step, as `program.run` does. */
  readonly run: (
    step: number,
    program: Program,
    uploads: Readonly<Record<string, Upload>>,
  ) => ReturnType<Program["run"]>;
  /** Notes that a step is done. */
  readonly step: (report: StepReport) => Effect.Effect<void>;
  /** Gives the stage that saves checkpoints a track of its own. */
  readonly withSaves: <A, E, R>(stage: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>;
}

/** The profile of a run that is not profiled. */
export const noProfile: Profile = {
  mark: () => {},
  batch: () => {},
  run: (_step, program, uploads) => program.run(uploads),
  step: () => Effect.void,
  withSaves: identity,
};

/** What a profile needs to know of its run. */
export interface ProfiledTask extends Pick<RunPlan, "firstStep" | "lastStep" | "device"> {
  /** The name of the task. */
  readonly task: string;
  /** The run's folder. */
  readonly outputDir: string;
}

/**
 * Profiles steps 6 to 8 of a run, or its last ones where it is shorter. The device is timed in these steps, the host
 * from the start. After the last of them the profile writes `trace.json` to the run's folder and logs a table; the run
 * goes on. The results of the steps do not change. `program` is that of most steps; others may come later. Fails with
 * a `GpuError`.
 */
export const profileOf: (
  run: ProfiledTask,
  program: Program,
) => Effect.Effect<Profile, GpuError, Scope.Scope> = Effect.fnUntraced(function* (
  { task, outputDir, firstStep, lastStep, device },
  program,
) {
  const begin = firstStep + Math.min(WARM_UP, Math.max(0, lastStep - firstStep - PROFILED));
  const end = Math.min(begin + PROFILED, lastStep);
  const profilerOf = yield* profilers;
  yield* profilerOf(program); // now, while the device is idle
  const opened = performance.now();
  const runs: (readonly TimedKernel[])[] = [];
  const host: StepReport["seconds"]["host"][] = [];
  const thread: TraceSpan[] = [{ name: "start", begin: 0, end: opened }];
  const saves: TraceSpan[] = [];
  const workers: TraceSpan[][] = [];
  const deviceSpans: TraceSpan[] = [];
  let finished = false;

  const finish = Effect.gen(function* () {
    finished = true;
    const file = join(outputDir, "trace.json");
    const tracks = [
      { name: `device: ${device}`, spans: deviceSpans },
      { name: "main thread", spans: thread },
      ...saves.length === 0 ? [] : [{ name: "checkpoints", spans: saves }],
      ...workers.map((spans, i) => ({ name: `decoding worker ${i + 1}`, spans })),
    ];
    yield* Effect.logInfo(`${named(begin, end)}:\n\n${profileTables(runs, host)}\n`);
    if (runs.length === 0) {
      yield* Effect.logWarning(
        `${device} cannot time kernels: the profile needs an adapter with timestamp-query, and shows only the host's work`,
      );
    }
    yield* writeWholeFile(file, [new TextEncoder().encode(traceFile(`slotcon ${task}`, tracks))]).pipe(
      Effect.andThen(Effect.logInfo(`trace in ${file}: open it on ui.perfetto.dev or chrome://tracing`)),
      Effect.catch(({ message }) => Effect.logWarning(`Cannot write "${file}": ${message}`)),
    );
  });

  return {
    mark: (phase, begin, end) => {
      if (!finished && end > begin) thread.push({ name: PHASE_WORDS[phase], begin, end });
    },
    batch: ({ step, worker, times }) => {
      if (finished) return;
      const [begin, decoded, packed] = [times.begin, times.decoded, times.packed]
        .map((since1970) => since1970 - performance.timeOrigin);
      const spans = workers[worker] ??= [];
      const details = { step: step + 1 };
      spans.push(
        { name: "decode", begin, end: decoded, details },
        { name: "pack", begin: decoded, end: packed, details },
      );
    },
    withSaves: Effect.fnUntraced(function* (saving) {
      const span = yield* StageSpan;
      const noting: typeof span = (stage, step) => (work) =>
        Effect.suspend(() => {
          const begin = performance.now();
          const note = () => {
            if (!finished) saves.push({ name: stage, begin, end: performance.now(), details: { step } });
          };
          return Effect.ensuring(span(stage, step)(work), Effect.sync(note));
        });
      return yield* Effect.provideService(saving, StageSpan, noting);
    }),
    run: (step, program, uploads) => {
      if (step < begin || step >= end) return program.run(uploads);
      return Effect.map(
        Effect.flatMap(profilerOf(program), (profiled) => profiled(uploads)),
        (reading) =>
          Effect.map(reading, ({ outputs, kernels, host }) => {
            thread.push(...host);
            if (kernels !== null) {
              runs.push(kernels);
              deviceSpans.push(...nested(step, kernels));
            }
            return outputs;
          }),
      );
    },
    step: ({ step, seconds }) => {
      if (step >= begin && step < end) host.push(seconds.host);
      return step + 1 === end ? finish : Effect.void;
    },
  } satisfies Profile as Profile;
});

/** Prepares a program for profiled runs when the first of them asks for it, until the scope ends. */
const profilers = Effect.gen(function* () {
  const scope = yield* Effect.scope;
  const known = new Map<Program["profiler"], Effect.Success<Program["profiler"]>>();
  return Effect.fnUntraced(function* ({ profiler }: Program) {
    const prepared = known.get(profiler) ?? (yield* Scope.provide(profiler, scope));
    known.set(profiler, prepared);
    return prepared;
  });
});

const named = (begin: number, end: number) =>
  end - begin === 1 ? `Step ${end}` : `Steps ${begin + 1} to ${end}, on average`;

/** A step, its stages and their kernels, as nested spans. */
const nested = (step: number, kernels: readonly TimedKernel[]): TraceSpan[] => {
  const around = (name: string, first: TimedKernel, last: TimedKernel): TraceSpan => (
    { name, begin: first.begin, end: last.end }
  );
  const spans = [around(`step ${step + 1}`, kernels[0], kernels[kernels.length - 1])];
  for (let first = 0; first < kernels.length;) {
    const { stage } = kernels[first];
    const next = kernels.findIndex((kernel, i) => i > first && kernel.stage !== stage);
    const after = next < 0 ? kernels.length : next;
    if (stage !== "") spans.push(around(stage, kernels[first], kernels[after - 1]));
    first = after;
  }
  return [
    ...spans,
    ...kernels.map(({ name, begin, end, makes, kernel: { workgroups } }) => ({
      name,
      begin,
      end,
      details: {
        op: opText(makes),
        workgroups: "indirect" in workgroups ? "indirect" : workgroups.join(" × "),
      },
    })),
  ];
};
