/**
 * Rematerialisation (activation checkpointing): where memory is short, results that are held for long are dropped and
 * recomputed before they are used.
 *
 * In training these are activations, computed in the forward pass and needed in the backward pass. Some cost next to
 * nothing to recompute (a ReLU of what is there anyway), others a whole convolution; a recomputation needs its own
 * inputs, which are held longer or recomputed as well. So a program trades time for memory in small pieces, the
 * cheapest first.
 */
import {
  type IdleSpans,
  type ScheduledOp,
  ScheduleSimulation,
  type Simulated,
} from "./schedule_simulation.ts";

/** An order of ops, by index, in which some occur more than once: a reader reads the latest result. */
export interface Schedule {
  readonly order: readonly number[];
  /** The most bytes that are in use at one time. */
  readonly peak: number;
}

/** The peak is lowered in steps to this share of it, and in smaller ones where that finds nothing more. */
const STEPS = [0.9, 0.95, 0.98];

/**
 * A schedule with at most `budget` bytes in use at any time, at little cost; where none is found, the one with the
 * fewest bytes.
 *
 * Greedy, lowering the peak by 10 % at a time: as long as more bytes than that are in use at some op, drops the result
 * that removes most of the excess for the cost of recomputing it. As bytes grow dearer, undoes drops that no longer
 * pay, such as those that make many others costlier to recompute; in the end those that are not needed.
 */
export const scheduleWithin = (ops: readonly ScheduledOp[], budget: number): Schedule => {
  const search = new DropSearch(ops);
  let least = search.schedule();
  for (const step of STEPS) {
    while (least.peak > budget && search.lowerPeakTo(Math.max(budget, step * least.peak))) {
      least = search.schedule();
    }
  }
  return least;
};

/** Simulations in a step at most: more than it needs, unless there is nothing to be found. */
const MOST_TRIALS = 3000;

/** Bytes above this share of the budget count as excess, so that ops just below the peak are lowered with it. */
const EXCESS_ABOVE = 0.9;

/** Bytes are weighed against cost to this power: less than 1 prefers few large drops to many small ones. */
const COST_EXPONENT = 0.7;

/** The least cost that counts, as a share of that of all ops: below it recomputing is as good as free. */
const LEAST_COST = 1e-6;

/** A drop that removes less than this share of the worst one per cost no longer pays. */
const STILL_PAYS = 0.8;

/** The result of `op` is dropped after the op `after`. */
interface Drop {
  readonly op: number;
  readonly after: number;
}

/** A drop that may be made, and the excess that it removes per cost. */
interface Candidate {
  readonly drop: Drop;
  /** Exact if `evaluatedAt` is the current number of drops; else an upper bound, as a rule. */
  readonly worth: number;
  readonly evaluatedAt: number;
}

/** A set of drops, and how to change it. */
class DropSearch {
  readonly #ops: readonly ScheduledOp[];
  readonly #simulation: ScheduleSimulation;
  #drops: number[][];
  #excessAbove = Infinity;
  #trials = 0;
  readonly #leastCost: number;

  constructor(ops: readonly ScheduledOp[]) {
    this.#ops = ops;
    this.#simulation = new ScheduleSimulation(ops);
    this.#drops = ops.map(() => []);
    this.#leastCost = LEAST_COST * ops.reduce((sum, { cost }) => sum + cost, 0);
  }

  /** The schedule with the current drops. */
  schedule(): Schedule {
    const { peak } = this.#simulate();
    return { order: this.#simulation.order(), peak };
  }

  /** Lowers the peak to `budget` and returns true, or leaves everything as it is and returns false. */
  lowerPeakTo(budget: number): boolean {
    this.#excessAbove = EXCESS_ABOVE * budget;
    const mostTrials = this.#trials + MOST_TRIALS;
    const before = this.#drops.map((all) => [...all]);
    while (
      this.#dropWhatPays(budget, mostTrials) && this.#simulate().peak > budget && this.#trials < mostTrials
    );
    if (this.#simulate().peak > budget) {
      this.#drops = before;
      return false;
    }
    this.#undoWhere((now) => now.peak <= budget);
    return true;
  }

  /**
   * Makes the drops that remove most excess per cost until the peak is within `budget`; false where none removes any.
   */
  #dropWhatPays(budget: number, mostTrials: number): boolean {
    let before = this.#simulate();
    let idle = this.#simulation.idleSpans();
    let made = 0;
    let leastWorth = Infinity; // of a drop that was made
    const queue = this.#candidates(idle);
    while (before.peak > budget && this.#trials < mostTrials) {
      const best = queue.pop();
      if (best === undefined) return made > 0;
      if (best.evaluatedAt !== made) {
        // Other drops lower the worth of a drop, as a rule: one that is still the best after evaluation is the best of
        // all.
        const candidate = this.#evaluated(best.drop.op, idle, before, made);
        if (candidate === null) continue; // it may pay later, when others are dropped
        queue.splice(queue.findLastIndex(({ worth }) => worth <= candidate.worth) + 1, 0, candidate);
        continue;
      }
      this.#drop(best.drop);
      made++;
      if (best.worth < leastWorth / 2) {
        leastWorth = best.worth;
        this.#undoUnprofitable(STILL_PAYS * leastWorth);
      }
      before = this.#simulate();
      idle = this.#simulation.idleSpans();
    }
    return true;
  }

  /** All results that are idle while there is excess, with upper bounds of their worth, the best last. */
  #candidates({ after, length }: IdleSpans): Candidate[] {
    return this.#simulation.counted.filter((op) => this.#ops[op].repeatable && length[op] > 0)
      .map((op): Candidate => {
        const { bytes, cost } = this.#ops[op];
        const worth = bytes * length[op] / this.#priceOf(cost);
        return { drop: { op, after: after[op] }, worth, evaluatedAt: -1 };
      })
      .sort((a, b) => a.worth - b.worth);
  }

  /** The worth of dropping a result where it is idle for the longest; null where that removes no excess. */
  #evaluated(op: number, idle: IdleSpans, before: Simulated, made: number): Candidate | null {
    if (idle.length[op] === 0) return null;
    const drop = { op, after: idle.after[op] };
    this.#drop(drop);
    const now = this.#simulate();
    this.#undo(drop);
    const worth = (before.excess - now.excess) / this.#priceOf(now.cost - before.cost);
    return worth <= 0 ? null : { drop, worth, evaluatedAt: made };
  }

  /** Undoes drops that remove less excess per cost than `worth`. */
  #undoUnprofitable(worth: number): void {
    this.#undoWhere((now, before) => {
      const returned = now.excess - before.excess;
      return returned <= 0 || returned / this.#priceOf(Math.max(0, before.cost - now.cost)) < worth;
    });
  }

  /** Undoes drops one by one, the costliest first, and keeps them undone where `isBetter` says so. */
  #undoWhere(isBetter: (now: Simulated, before: Simulated) => boolean): void {
    let before = this.#simulate();
    const drops = this.#drops.flatMap((all, op) => all.map((after): Drop => ({ op, after })));
    for (const drop of drops.sort((a, b) => this.#ops[b.op].cost - this.#ops[a.op].cost)) {
      this.#undo(drop);
      const now = this.#simulate();
      if (isBetter(now, before)) before = now;
      else this.#drop(drop);
    }
    this.#simulate();
  }

  #drop({ op, after }: Drop): void {
    this.#drops[op].push(after);
  }

  #undo({ op, after }: Drop): void {
    this.#drops[op].splice(this.#drops[op].indexOf(after), 1);
  }

  #simulate(): Simulated {
    this.#trials++;
    return this.#simulation.run(this.#drops, this.#excessAbove);
  }

  #priceOf(cost: number): number {
    return Math.max(this.#leastCost, cost) ** COST_EXPONENT;
  }
}
