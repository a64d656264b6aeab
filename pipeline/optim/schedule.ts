/**
 * How the learning rate and the teacher's momentum run over a pretraining run: pure functions of a counter.
 *
 * Source: the behaviour of the published training code, number by number (`testdata/schedule`).
 */

/** What the schedules depend on; a `Config` together with the size of its data set has all of it. */
export interface ScheduleOptions {
  readonly epochs: number;
  readonly warmupEpoch: number; // epochs of linear warm-up, may be 0
  readonly warmupMultiplier: number; // the warm-up starts at peak / multiplier
  readonly baseLr: number; // rate for a total batch of 256
  readonly batchSize: number; // images a step, over all ranks
  readonly world: number; // ranks
  readonly instances: number; // images in the data set
  readonly teacherMomentum: number; // at the start; ends at 1
}

export interface Schedule {
  readonly batchPerRank: number;
  readonly stepsPerEpoch: number;
  readonly totalSteps: number;
  readonly warmupSteps: number;
  readonly warmupMultiplier: number;
  readonly peakRate: number;
  readonly teacherSteps: number; // where the teacher's momentum reaches 1
  readonly teacherMomentum: number;
}

/** Where the learning rate ends. */
export const FLOOR_RATE = 1e-6;

/**
 * Derives the lengths of both schedules. The learning rate counts whole epochs, in which every rank pads its share of
 * the images and drops the last partial batch; the teacher counts fractional epochs, without any such rounding.
 */
export const planSchedule = (options: ScheduleOptions): Schedule => {
  const batchPerRank = Math.floor(options.batchSize / options.world);
  const stepsPerEpoch = Math.floor(Math.ceil(options.instances / options.world) / batchPerRank);
  return {
    batchPerRank,
    stepsPerEpoch,
    totalSteps: stepsPerEpoch * options.epochs,
    warmupSteps: stepsPerEpoch * options.warmupEpoch,
    warmupMultiplier: options.warmupMultiplier,
    peakRate: batchPerRank * options.world / 256 * options.baseLr,
    teacherSteps: teacherCounter(options, options.epochs),
    teacherMomentum: options.teacherMomentum,
  };
};

/** The teacher's counter after a number of epochs: where a published checkpoint, which lacks it, resumes. */
export const teacherCounter = (options: ScheduleOptions, epochs: number): number =>
  Math.trunc(options.instances / options.world / Math.floor(options.batchSize / options.world) * epochs);

/**
 * The learning rate of optimiser step `step`, counted from 0: linear from peak / multiplier to the peak at the end of
 * the warm-up, then a half cosine down to 1e-6 over the remaining steps.
 */
export const learningRate = (step: number, schedule: Schedule): number => {
  const { warmupSteps, totalSteps, warmupMultiplier, peakRate } = schedule;
  if (step < warmupSteps) {
    return peakRate / warmupMultiplier * ((warmupMultiplier - 1) * step / warmupSteps + 1);
  }
  const angle = Math.PI * (step - warmupSteps) / (totalSteps - warmupSteps);
  return FLOOR_RATE + (peakRate - FLOOR_RATE) * (1 + Math.cos(angle)) / 2;
};

/** The share of itself that the teacher keeps in its update number `k`, counted from 0: a half cosine up to 1. */
export const teacherMomentum = (k: number, { teacherSteps, teacherMomentum: start }: Schedule): number =>
  1 - (1 - start) * (Math.cos(Math.PI * k / teacherSteps) + 1) / 2;
