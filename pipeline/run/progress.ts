/** What a run reports of itself, as plain values and as text. */
import { Context, Effect } from "effect";
import type { Recomputed } from "../../ops/compiler/lower.ts";
import type { Seconds } from "./phase_timer.ts";

/** What is known of a run before its first step, as `plan.json` in its folder holds it. */
export interface RunPlan {
  /** Steps that are done already: more than 0 where the run goes on from a checkpoint. */
  readonly firstStep: number;
  /** Steps that will be done at the end. */
  readonly lastStep: number;
  /** Steps from one epoch to the next. */
  readonly stepsPerEpoch: number;
  /** Images a step, over all ranks. */
  readonly batchSize: number;
  /** Bytes of device memory that this rank reserves for the whole run. */
  readonly deviceBytes: number;
  /** The same bytes by their use. */
  readonly memory: Readonly<Record<string, number>>;
  /** What is computed twice because of a memory limit. */
  readonly recomputed?: Recomputed;
  /** The adapter's description. */
  readonly device: string;
  /** For every kind of work that several kernels can do, the one that does it. */
  readonly kernels: Readonly<Record<string, string>>;
  /** Steps between two lines of the log. */
  readonly printFreq: number;
}

/** How one step went. */
export interface StepReport {
  /** The step, from 0. */
  readonly step: number;
  /** The epoch, from 1. */
  readonly epoch: number;
  /** The numbers that it reports. */
  readonly metrics: Metrics;
  /** Images a second, over all ranks, smoothed over some ten steps. */
  readonly imagesPerSecond: number;
  /** Where the time since the previous step went. */
  readonly seconds: Seconds;
}

/**
 * The numbers that a step reports: these of every task, and others of its own, such as the terms of the loss,
 * `loss_…`.
 */
export interface Metrics {
  /** The loss, a mean over ranks. */
  readonly loss: number;
  /** The learning rate. */
  readonly lr: number;
  /** Images of the step's batch that stand in for unreadable ones. */
  readonly bad_images: number;
  /** In half precision: the loss scale of the next step. */
  readonly loss_scale?: number;
  /** In half precision: the steps so far that were skipped since their gradients were not finite. */
  readonly skipped_steps?: number;
  /** What the task's step reports besides. */
  readonly [more: string]: number | undefined;
}

/** Where a run reports to besides its folder. */
export interface ProgressSink {
  /** Called once, before the first step. */
  readonly begin: (plan: RunPlan) => Effect.Effect<void>;
  /** Called after every step, in their order. */
  readonly step: (report: StepReport) => Effect.Effect<void>;
  /** Called before the first step with what the run does from now on, in words. */
  readonly preparing?: (words: string) => Effect.Effect<void>;
}

/** The progress sink of a run; a no-op by default. */
export const Progress: Context.Reference<ProgressSink> = Context.Reference("slotcon/Progress", {
  defaultValue: (): ProgressSink => ({ begin: () => Effect.void, step: () => Effect.void }),
});

/** Tells the progress sink what a run does from now on, before its first step. */
export const preparing = (words: string): Effect.Effect<void> =>
  Effect.flatMap(Progress, (progress) => progress.preparing?.(words) ?? Effect.void);

/** Whether this step, from 0, gets a line in the log. */
export const isPrinted = (step: number, { printFreq }: RunPlan): boolean => (step + 1) % printFreq === 0;

/** A step in one line, for logs. */
export const stepLine = ({ step, epoch, metrics, imagesPerSecond }: StepReport, plan: RunPlan): string => {
  const terms = lossTerms(metrics).map(([term, value]) => `${term} ${value.toFixed(4)}`).join(", ");
  return [
    `epoch ${epoch}`,
    `step ${step + 1}/${plan.lastStep}`,
    `loss ${metrics.loss.toFixed(4)}${terms === "" ? "" : ` (${terms})`}`,
    `lr ${metrics.lr.toPrecision(4)}`,
    ...lossScaleText(metrics),
    `${imagesPerSecond.toPrecision(3)} images/s`,
    `${duration(secondsLeft(step, imagesPerSecond, plan))} left`,
  ].join("  ");
};

/**
 * The terms that add up to the loss, by name: the metrics `loss_group` and `loss_slot` of a step are "group" and
 * "slot".
 */
export const lossTerms = (metrics: Metrics): [term: string, value: number][] =>
  Object.entries(metrics).flatMap(([name, value]) =>
    name.startsWith("loss_") && name !== "loss_scale" && value !== undefined
      ? [[name.slice("loss_".length), value]]
      : []
  );

/** The loss scale as text, in a list of one; an empty list in single precision. */
export const lossScaleText = ({ loss_scale, skipped_steps = 0 }: Metrics): string[] =>
  loss_scale === undefined
    ? []
    : [`scale ${loss_scale}${skipped_steps === 0 ? "" : ` (${skipped_steps} skipped)`}`];

/** Seconds that a run takes after this step, from 0, at the present speed. */
export const secondsLeft = (
  step: number,
  imagesPerSecond: number,
  { lastStep, batchSize }: RunPlan,
): number => (lastStep - step - 1) * batchSize / imagesPerSecond;

/** Seconds as "45 s", "3:05 min", "2:15 h" or "3 d 4 h". */
export const duration = (seconds: number): string => {
  if (!Number.isFinite(seconds)) return "?";
  const pad = (value: number) => String(Math.floor(value)).padStart(2, "0");
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}:${pad(whole % 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)}:${pad(whole / 60 % 60)} h`;
  return `${Math.floor(whole / 86400)} d ${Math.floor(whole / 3600 % 24)} h`;
};

/** The numbers of a step under the names that `metrics.jsonl`, TensorBoard and OpenTelemetry have for them. */
export const metricsLine = (
  { step, epoch, metrics, imagesPerSecond }: StepReport,
): Readonly<Record<string, number>> & { readonly step: number } => (
  { step, epoch, ...metrics, images_per_second: Number(imagesPerSecond.toPrecision(6)) } as never
);
