/** Where the time of a few steps goes, kernel by kernel (`--profile`): a table for the log, and a trace. */
import { join } from "node:path";
import { Effect, identity, Scope } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { traceFile, type TraceSpan } from "../../data/formats/trace_events.ts";
import { bytesOf } from "../../ops/graph/kernel.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import type { Program, TimedKernel, Upload } from "../../ops/runtime/program.ts";
import type { StepBatch } from "./batch.ts";
import { StageSpan } from "./otlp.ts";
import type { Phase } from "./phase_timer.ts";
import type { RunPlan, StepReport } from "./progress.ts";
import { table } from "./table.ts";

/** Steps before those that are profiled: drivers compile in the first one, and caches fill. */
const WARM_UP = 5;
/** Steps that are profiled. */
const PROFILED = 3;
/** Rows of the table of ops. */
const MOST_ROWS = 25;

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
 * Profiles steps 6 to 8 of a run, or its last ones where it is shorter. The device is timed in these steps, the host from
 * the start. After the last of them the profile writes `trace.json` to the run's folder and logs a table; the run goes on.
 * The results of the steps do not change. `program` is that of most steps; others may come later. Fails with a `GpuError`.
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
    yield* Effect.logInfo(`${named(begin, end)}:\n\n${report(runs, host)}\n`);
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
      if (!finished && end > begin) thread.push({ name: WORDS[phase], begin, end });
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
  const known = new Map<Program, Effect.Success<Program["profiler"]>>();
  return Effect.fnUntraced(function* (program: Program) {
    const profiler = known.get(program) ?? (yield* Scope.provide(program.profiler, scope));
    known.set(program, profiler);
    return profiler;
  });
});

/** The phases of the run's thread, in words for a trace. */
const WORDS: Readonly<Record<Phase, string>> = {
  decode: "wait for pictures",
  submit: "submit",
  device: "wait for the device",
  sync: "wait for other ranks",
  checkpoint: "checkpoint",
  report: "report",
};

const named = (begin: number, end: number) =>
  end - begin === 1 ? `Step ${end}` : `Steps ${begin + 1} to ${end}, on average`;

/** A step, its stages and their kernels, as spans one within the other. */
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
        op: described(makes),
        workgroups: "indirect" in workgroups ? "indirect" : workgroups.join(" × "),
      },
    })),
  ];
};

/** An op with the shapes that say how much work it is. */
const described = ({ source, shape }: Tensor): string => {
  if (source.kind !== "op") return source.kind;
  const { op, inputs } = source;
  const shapes = op.flops === undefined ? [shape] : inputs.slice(0, 2).map((x) => x.shape);
  return `${op.name} ${shapes.map((sizes) => `[${sizes.join(", ")}]`).join(" ")}`;
};

interface Row {
  readonly stage: string;
  readonly op: string;
  readonly calls: number;
  readonly milliseconds: number;
  readonly rate: string;
}

/** What alike ops of a step take together, the longest first: means over the runs. */
const rowsOf = (runs: readonly (readonly TimedKernel[])[]): readonly Row[] => {
  const alike = Map.groupBy(runs.flat(), ({ stage, makes }) => `${stage} ${described(makes)}`);
  return [...alike.values()].map((kernels): Row => {
    const calls = [...new Set(kernels.map(({ makes }) => makes))];
    return {
      stage: kernels[0].stage,
      op: described(calls[0]),
      calls: calls.length,
      milliseconds: lasted(kernels) / runs.length,
      rate: rateOf(kernels, calls, runs.length),
    };
  }).sort((a, b) => b.milliseconds - a.milliseconds);
};

/**
 * Of products and convolutions what they compute in a second, of others what their kernels are bound to; nothing where only
 * the device knows how much there is to do.
 */
const rateOf = (kernels: readonly TimedKernel[], calls: readonly Tensor[], runs: number): string => {
  if (kernels.some(({ kernel }) => "indirect" in kernel.workgroups)) return "";
  const perSecond = (amount: number) => (amount / lasted(kernels) * 1e3 / 1e9).toPrecision(3);
  const flops = calls.reduce(
    (sum, { source, shape }) =>
      source.kind === "op" && source.op.flops !== undefined
        ? sum + source.op.flops(source.inputs, shape)
        : sum,
    0,
  );
  if (flops > 0) return `${perSecond(flops * runs)} GFLOP/s`;
  const bytes = kernels.reduce(
    (sum, { kernel }) => kernel.bindings.reduce((sum, { operand }) => sum + bytesOf(operand), sum),
    0,
  );
  return `${perSecond(bytes)} GB/s`;
};

const lasted = (spans: readonly TraceSpan[]) => spans.reduce((sum, { begin, end }) => sum + end - begin, 0);

/** Where the time went as text: the run's thread, the device's stages, and its ops. */
const report = (
  runs: readonly (readonly TimedKernel[])[],
  host: readonly StepReport["seconds"]["host"][],
): string => {
  const share = (part: number, whole: number) => `${(100 * part / whole).toFixed(1)} %`;
  const spent = (Object.keys(WORDS) as Phase[]).map((account) => ({
    what: WORDS[account],
    milliseconds: 1000 * host.reduce((sum, each) => sum + each[account], 0) / host.length,
  }));
  const step = spent.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  const thread = table([
    ["main thread", "ms a step", "of step"],
    ...spent.filter(({ milliseconds }) => milliseconds > 0)
      .map(({ what, milliseconds }) => [what, milliseconds.toFixed(1), share(milliseconds, step)]),
    ["step", step.toFixed(1), "100.0 %"],
  ]);
  if (runs.length === 0) return thread;

  const all = runs.flat();
  const worked = lasted(all) / runs.length;
  const line = (what: string, count: number, milliseconds: number) => [
    what,
    String(count),
    milliseconds.toFixed(2),
    share(milliseconds, worked),
    share(milliseconds, step),
  ];
  const columns = ["ms a step", "of device", "of step"];
  const stages = table([
    ["device", "kernels", ...columns],
    ...[...Map.groupBy(all, ({ stage }) => stage)].map(([stage, kernels]) =>
      line(stage, kernels.length / runs.length, lasted(kernels) / runs.length)
    ),
    line("all stages", runs[0].length, worked),
  ]);

  const rows = rowsOf(runs);
  const [most, others] = [rows.slice(0, MOST_ROWS), rows.slice(MOST_ROWS)];
  const sum = (what: "calls" | "milliseconds") => others.reduce((total, row) => total + row[what], 0);
  const widest = Math.max(...rows.map(({ stage }) => stage.length), "stage".length);
  const ops = table([
    [`${"stage".padEnd(widest)}  op`, "calls", ...columns, "rate"],
    ...most.map(({ stage, op, calls, milliseconds, rate }) => [
      ...line(`${stage.padEnd(widest)}  ${op}`, calls, milliseconds),
      rate,
    ]),
    ...others.length === 0
      ? []
      : [[...line(`${" ".repeat(widest)}  ${others.length} others`, sum("calls"), sum("milliseconds")), ""]],
  ]);
  return [thread, stages, ops].join("\n\n");
};
