/** What a schedule takes in which results are dropped and recomputed: its order, its memory, and the extra cost. */

/** One op of a program and its result; ops are named by their index in the schedule. */
export interface ScheduledOp {
  /** The ops whose results it reads. */
  readonly reads: readonly number[];
  /** Bytes of its result. */
  readonly bytes: number;
  /** Bytes that it takes besides while it runs. */
  readonly scratch: number;
  /** How long it takes, in any unit. */
  readonly cost: number;
  /** Whether its result may be dropped and recomputed. */
  readonly repeatable: boolean;
  /** Whether its result is needed after the last op. */
  readonly isResult: boolean;
}

/** For each op the ops after which its result is dropped; the next op that reads it has it recomputed. */
export type Drops = readonly (readonly number[])[];

/** What a schedule takes. */
export interface Simulated {
  /** The most bytes in use at one time. */
  readonly peak: number;
  /** Bytes in use above `excessAbove`, summed over all ops. */
  readonly excess: number;
  /** Cost of what is recomputed. */
  readonly cost: number;
}

/** When a result is in memory without being read, see `idleSpans`. */
export interface IdleSpans {
  /** For each op: after which op its result is idle for the longest. */
  readonly after: Int32Array;
  /** For how many ops with excess. */
  readonly length: Int32Array;
}

/**
 * Results below this share of the largest are not counted, and never dropped: most are, and they take hardly any
 * memory.
 */
const SMALL = 1e-4;

/**
 * Simulates schedules of the same ops. Each run replaces the results of the one before, in arrays that are used again:
 * a search runs thousands.
 *
 * A schedule has steps: each op once, and before an op the recomputations that it needs.
 */
export class ScheduleSimulation {
  /** Ops that matter to memory, in schedule order. */
  readonly counted: readonly number[];
  readonly #ops: readonly ScheduledOp[];
  /** Of each op the inputs that are large enough to be counted. */
  readonly #reads: readonly (readonly number[])[];
  #drops: Drops;
  #excessAbove = Infinity;

  // The steps, and for each of them: its op, the op that it is scheduled for, and the step that reads its result last.
  #steps = 0;
  #opAt: Int32Array<ArrayBuffer>;
  #scheduledForAt: Int32Array<ArrayBuffer>;
  #lastReadAt: Int32Array<ArrayBuffer>;
  #cost = 0; // of all recomputations

  // For each op: the step that has computed it last, and the most bytes in use in the steps that are scheduled for it.
  readonly #computedAt: Int32Array;
  readonly #bytesDuring: Float64Array;

  // Of `idleSpans`.
  readonly #lastReader: Int32Array;
  readonly #excessBefore: Int32Array;
  readonly #idle: IdleSpans;

  constructor(ops: readonly ScheduledOp[]) {
    this.#ops = ops;
    const n = ops.length;
    const small = SMALL * ops.reduce((most, { bytes }) => Math.max(most, bytes), 0);
    const isLarge = (op: number) => ops[op].bytes > small;
    this.#reads = ops.map(({ reads }) => reads.filter(isLarge));
    this.counted = [...ops.keys()].filter((op) =>
      isLarge(op) || this.#reads[op].length > 0 || ops[op].scratch > small
    );
    this.#drops = ops.map(() => []);
    [this.#opAt, this.#scheduledForAt, this.#lastReadAt] = [1, 2, 3].map(() => new Int32Array(2 * n));
    [this.#computedAt, this.#lastReader] = [1, 2].map(() => new Int32Array(n));
    this.#bytesDuring = new Float64Array(n);
    this.#excessBefore = new Int32Array(n + 1);
    this.#idle = { after: new Int32Array(n), length: new Int32Array(n) };
  }

  /** Simulates the schedule with these drops; bytes above `excessAbove` count as excess. */
  run(drops: Drops, excessAbove: number): Simulated {
    [this.#drops, this.#excessAbove, this.#steps, this.#cost] = [drops, excessAbove, 0, 0];
    for (const op of this.counted) this.#schedule(op, op);
    this.#measure();
    let [peak, excess] = [0, 0];
    for (const op of this.counted) {
      const bytes = this.#bytesDuring[op];
      if (bytes > excessAbove) excess += bytes - excessAbove;
      if (bytes > peak) peak = bytes;
    }
    return { peak, excess, cost: this.#cost };
  }

  /** Adds the steps that compute an op, after those that recompute what it reads and what has been dropped. */
  #schedule(op: number, scheduledFor: number): void {
    for (const read of this.#reads[op]) {
      if (!this.#isDropped(read, scheduledFor)) continue;
      this.#cost += this.#ops[read].cost;
      this.#schedule(read, scheduledFor);
    }
    const step = this.#steps++;
    if (step === this.#opAt.length) {
      this.#opAt = twiceAsLong(this.#opAt);
      this.#scheduledForAt = twiceAsLong(this.#scheduledForAt);
      this.#lastReadAt = twiceAsLong(this.#lastReadAt);
    }
    for (const read of this.#reads[op]) this.#lastReadAt[this.#computedAt[read]] = step;
    this.#opAt[step] = op;
    this.#scheduledForAt[step] = scheduledFor;
    this.#lastReadAt[step] = step;
    this.#computedAt[op] = step;
  }

  /** Whether a result has been dropped between its latest computation and `reader`. */
  #isDropped(op: number, reader: number): boolean {
    const drops = this.#drops[op];
    if (drops.length === 0) return false;
    const computedFor = this.#scheduledForAt[this.#computedAt[op]];
    return drops.some((after) => computedFor <= after && after < reader);
  }

  /** Finds the bytes in use in each step. */
  #measure(): void {
    const change = new Float64Array(this.#steps + 1);
    for (let step = 0; step < this.#steps; step++) {
      const { bytes, isResult } = this.#ops[this.#opAt[step]];
      change[step] += bytes;
      change[isResult ? this.#steps : this.#lastReadAt[step] + 1] -= bytes;
    }
    this.#bytesDuring.fill(0);
    let inUse = 0;
    for (let step = 0; step < this.#steps; step++) {
      inUse += change[step];
      const bytes = inUse + this.#ops[this.#opAt[step]].scratch;
      const op = this.#scheduledForAt[step];
      if (bytes > this.#bytesDuring[op]) this.#bytesDuring[op] = bytes;
    }
  }

  /**
   * Finds in the latest schedule for each result the longest time in which it is not read, counted in ops with excess.
   */
  idleSpans(): IdleSpans {
    const { after, length } = this.#idle;
    const excessBefore = this.#excessBefore; // how many of the ops before one have excess
    for (let op = 0; op < this.#ops.length; op++) {
      excessBefore[op + 1] = excessBefore[op] + (this.#bytesDuring[op] > this.#excessAbove ? 1 : 0);
    }
    length.fill(0);
    for (let step = 0; step < this.#steps; step++) {
      const reader = this.#scheduledForAt[step];
      for (const read of this.#reads[this.#opAt[step]]) {
        const last = this.#lastReader[read];
        const idle = excessBefore[reader] - excessBefore[Math.min(reader, last + 1)];
        if (idle > length[read]) {
          length[read] = idle;
          after[read] = last;
        }
        this.#lastReader[read] = reader;
      }
      this.#lastReader[this.#opAt[step]] = reader;
    }
    return this.#idle;
  }

  /**
   * The order of the latest schedule: all ops by index, those that are recomputed also before the op that needs them.
   */
  order(): readonly number[] {
    const recomputed = this.#ops.map((): number[] => []);
    for (let step = 0; step < this.#steps; step++) {
      const [op, scheduledFor] = [this.#opAt[step], this.#scheduledForAt[step]];
      if (op !== scheduledFor) recomputed[scheduledFor].push(op);
    }
    return recomputed.flatMap((repeats, op) => [...repeats, op]);
  }
}

const twiceAsLong = (array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> => {
  const longer = new Int32Array(2 * array.length);
  longer.set(array);
  return longer;
};
