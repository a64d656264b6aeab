/**
 * The schedules of the learning rate and of the teacher's momentum over a run, as pure functions of a counter
 * (docs/method.md, sections 3 and 7).
 *
 * Source: the behaviour of the published training code, number by number (`testdata/schedule`).
 */

/** The options of the schedules; a `Config` together with the number of images in its data set has all of them. */
export interface ScheduleOptions {
  /** Epochs of the whole run. */
  readonly epochs: number;
  /** Epochs of linear warm-up, may be 0. */
  readonly warmupEpoch: number;
  /** The warm-up starts at peak / multiplier. */
  readonly warmupMultiplier: number;
  /** Learning rate for a total batch of 256. */
  readonly baseLr: number;
  /** Images a step, over all ranks. */
  readonly batchSize: number;
  /** Number of ranks. */
  readonly world: number;
  /** Images in the data set. */
  readonly instances: number;
  /** The teacher's momentum at the start; it ends at 1. */
  readonly teacherMomentum: number;
}

/** The lengths of the schedules, in steps, and their first and largest values. */
export interface Schedule {
  /** Images a step and rank. */
  readonly batchPerRank: number;
  /** Steps an epoch. */
  readonly stepsPerEpoch: number;
  /** Steps of the whole run. */
  readonly totalSteps: number;
  /** Steps of linear warm-up. */
  readonly warmupSteps: number;
  /** The warm-up starts at peak / multiplier. */
  readonly warmupMultiplier: number;
  /** The largest learning rate. */
  readonly peakRate: number;
  /** Updates of the teacher after which its momentum is 1. */
  readonly teacherSteps: number;
  /** The teacher's momentum at the start. */
  readonly teacherMomentum: number;
}

/** The learning rate at the end. */
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

/** Updates of the teacher after a number of epochs, at which a published checkpoint resumes, since it lacks them. */
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
