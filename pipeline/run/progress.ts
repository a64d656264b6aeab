/** What a run tells of itself, in plain values and in words. */
import { Context, Effect } from "effect";
import type { Recomputed } from "../../ops/compiler/lower.ts";
import type { Seconds } from "./phase_timer.ts";

/** What is known of a run before its first step. */
export interface RunPlan {
  readonly firstStep: number; // more than 0 where a run is resumed
  readonly lastStep: number; // steps that will have been done at the end
  readonly stepsPerEpoch: number;
  readonly batchSize: number;
  readonly deviceBytes: number; // of device memory, for the whole run
  readonly memory: Readonly<Record<string, number>>; // bytes of what it is for
  readonly recomputed?: Recomputed; // for want of memory
  readonly device: string; // the adapter, in words
  /** How each kind of work is done that could be done in several ways. */
  readonly kernels: Readonly<Record<string, string>>;
  readonly printFreq: number; // steps between two lines of the log
}

/** How one step went. */
export interface StepReport {
  readonly step: number; // from 0
  readonly epoch: number; // from 1
  readonly metrics: Metrics;
  readonly imagesPerSecond: number;
  readonly seconds: Seconds; // where they went since the step before
}

export interface Metrics {
  readonly loss: number;
  readonly loss_group?: number; // its parts, unless a step of the user's own has others
  readonly loss_slot?: number;
  readonly lr: number;
  readonly teacher_momentum: number;
  readonly bad_images: number; // of this step's batch, each replaced by another
  readonly loss_scale?: number; // of the next step, in half precision
  readonly skipped_steps?: number; // in all, in half precision: their gradients were not finite
  readonly [more: string]: number | undefined;
}

/** Who watches a run besides its folder: nobody, unless a command shows it on a terminal. */
export const Progress = Context.Reference<{
  readonly begin: (plan: RunPlan) => Effect.Effect<void>;
  readonly step: (report: StepReport) => Effect.Effect<void>;
}>("slotcon/Progress", { defaultValue: () => ({ begin: () => Effect.void, step: () => Effect.void }) });

/** Whether this step gets a line in the log. */
export const isPrinted = (step: number, { printFreq }: RunPlan): boolean => (step + 1) % printFreq === 0;

/** A step in one line, for logs. */
export const stepLine = ({ step, epoch, metrics, imagesPerSecond }: StepReport, plan: RunPlan): string => {
  const { loss, loss_group, loss_slot, lr } = metrics;
  const parts = loss_group === undefined || loss_slot === undefined
    ? ""
    : ` (group ${loss_group.toFixed(4)}, slot ${loss_slot.toFixed(4)})`;
  return `epoch ${epoch}  step ${step + 1}/${plan.lastStep}  loss ${loss.toFixed(4)}${parts}  ` +
    `lr ${lr.toPrecision(4)}  ${lossScaleText(metrics).map((text) => `${text}  `).join("")}` +
    `${imagesPerSecond.toPrecision(3)} images/s  ${duration(secondsLeft(step, imagesPerSecond, plan))} left`;
};

/** The loss scale in words; none in a run of single precision. */
export const lossScaleText = ({ loss_scale, skipped_steps = 0 }: Metrics): string[] =>
  loss_scale === undefined
    ? []
    : [`scale ${loss_scale}${skipped_steps === 0 ? "" : ` (${skipped_steps} skipped)`}`];

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

/** What is known of a step in numbers, under the names that `metrics.jsonl` and its like have for them. */
export const metricsLine = ({ step, epoch, metrics, imagesPerSecond }: StepReport) => (
  { step, epoch, ...metrics, images_per_second: Number(imagesPerSecond.toPrecision(6)) }
);
