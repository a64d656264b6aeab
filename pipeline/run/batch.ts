/** What a run needs to know of a batch, whatever is in it. */

/** When a worker made a batch, in milliseconds since 1970. */
export interface BatchTimes {
  /** The worker begins. */
  readonly begin: number;
  /** All files are read and decoded, and their augmentation is drawn. */
  readonly decoded: number;
  /** The batch is packed for the device. */
  readonly packed: number;
}

/** The batch of a step, apart from its arrays. */
export interface StepBatch {
  /** The step that it is for, from 0. */
  readonly step: number;
  /** The epoch that it belongs to, from 0. */
  readonly epoch: number;
  /** The files of its images, in the order of the samples. */
  readonly images: readonly string[];
  /** How many of them stand in for images that cannot be decoded. */
  readonly badImages: number;
  /** The worker that made it, from 0. */
  readonly worker: number;
  /** When the worker made it. */
  readonly times: BatchTimes;
}
