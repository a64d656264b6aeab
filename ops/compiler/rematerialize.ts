/**
 * Recomputation: where memory is short, what is held for long and used late is dropped in between and computed again.
 *
 * In training these are activations: made in the forward pass, needed in the backward pass. Some cost next to nothing to
 * make again (a ReLU of what is there anyway), others a whole convolution; what is made again needs its own inputs, which
 * are held longer for it or made again as well. So a program trades time for memory in small pieces, the cheapest first.
 */

/** One op of a program and what it makes. Works are named by their place in the order of work. */
export interface ScheduledOp {
  /** The works whose results it reads. */
  readonly reads: readonly number[];
  /** Bytes of its result. */
  readonly bytes: number;
  /** Bytes that it takes besides while it runs. */
  readonly scratch: number;
  /** How long it takes, in any unit. */
  readonly cost: number;
  /** Whether its result may be dropped and made again. */
  readonly repeatable: boolean;
  /** Whether its result is needed after the last work. */
  readonly isResult: boolean;
}

/** An order of works in which some occur more than once: what comes later reads the latest result. */
export interface Schedule {
  readonly order: readonly number[];
  /** The most bytes that are in use at one moment. */
  readonly peak: number;
}

/** Memory is brought down in steps to this share of what it is, and in the others where that goes no further. */
const STEPS = [0.9, 0.95, 0.98];

/**
 * A schedule with at most `budget` bytes in use at any moment, at little cost; where none is found, that with the fewest
 * bytes.
 *
 * Greedy: as long as there are moments of more than `budget` bytes, that result is dropped which takes most of the excess
 * away for the cost of making it again. While bytes grow dearer, drops are undone that have become a bad bargain, such as
 * those that make many others costlier to make again; in the end those that have turned out to be needless.
 */
export const scheduleWithin = (works: readonly ScheduledOp[], budget: number): Schedule => {
  const { schedule, reduceTo } = dropSearch(works);
  let least = schedule();
  for (const step of STEPS) {
    while (least.peak > budget && reduceTo(Math.max(budget, step * least.peak))) least = schedule();
  }
  return least;
};

/** A result is let go after some work, to be made again for the next one that reads it. */
interface Drop {
  readonly work: number;
  readonly after: number;
}

/** How often a step may look at what a change would mean: more than it needs, unless there is nothing to be found. */
const MOST_TRIALS = 3000;

/** Bytes above this share of the budget count as excess, that what lies just below a peak is brought down with it. */
const MARK = 0.9;

/** Bytes count by their cost to this power: with less than 1, few large drops are made rather than many small ones. */
const COST_EXPONENT = 0.7;

/** Results below this share of the largest are kept, and not counted: most are, and memory is not what they take. */
const SMALL = 1e-4;

/** A schedule, and how to change it. */
const dropSearch = (works: readonly ScheduledOp[]) => {
  const n = works.length;
  const small = SMALL * works.reduce((most, { bytes }) => Math.max(most, bytes), 0);
  const isLarge = (work: number) => works[work].bytes > small;
  const reads = works.map(({ reads }) => reads.filter(isLarge));
  const counted = [...works.keys()].filter((work) =>
    isLarge(work) || reads[work].length > 0 || works[work].scratch > small
  );
  let droppedAfter = works.map((): number[] => []);

  // What the schedule is with these drops. A place is one in it: there are as many as counted works and repeats.
  let places = 0;
  let workAt = new Int32Array(2 * n);
  let servedAt = new Int32Array(2 * n); // the work itself, or that for which it is repeated
  let lastRead = new Int32Array(2 * n); // of what is made in a place: also a place
  const madeAt = new Int32Array(n); // the place of the latest result
  const bytesAt = new Float64Array(n); // the most that are in use while a work runs, or a repeat for it
  let peak = 0;
  let excess = 0; // summed over all works
  let excessAbove = Infinity;
  let cost = 0; // of all repeats
  let trials = 0;

  const run = (work: number, served: number) => {
    for (const read of reads[work]) {
      if (droppedAfter[read].length === 0) continue;
      const made = servedAt[madeAt[read]];
      if (!droppedAfter[read].some((after) => made <= after && after < served)) continue;
      cost += works[read].cost;
      run(read, served);
    }
    if (places === workAt.length) {
      [workAt, servedAt, lastRead] = [workAt, servedAt, lastRead].map(twiceAsLong);
    }
    for (const read of reads[work]) lastRead[madeAt[read]] = places;
    workAt[places] = work;
    servedAt[places] = served;
    lastRead[places] = places;
    madeAt[work] = places++;
  };

  const simulate = () => {
    trials++;
    [places, cost, excess, peak] = [0, 0, 0, 0];
    for (const work of counted) run(work, work);
    const change = new Float64Array(places + 1);
    for (let at = 0; at < places; at++) {
      const { bytes, isResult } = works[workAt[at]];
      change[at] += bytes;
      change[isResult ? places : lastRead[at] + 1] -= bytes;
    }
    bytesAt.fill(0);
    let inUse = 0;
    for (let at = 0; at < places; at++) {
      inUse += change[at];
      const bytes = inUse + works[workAt[at]].scratch;
      if (bytes > bytesAt[servedAt[at]]) bytesAt[servedAt[at]] = bytes;
    }
    for (const work of counted) {
      if (bytesAt[work] > excessAbove) excess += bytesAt[work] - excessAbove;
      if (bytesAt[work] > peak) peak = bytesAt[work];
    }
    return { peak, excess, cost };
  };

  // Of each result: after which work it is idle for the most works with excess, for how many, and who has read it so far.
  const idleAfter = new Int32Array(n);
  const idleFor = new Int32Array(n);
  const lastReader = new Int32Array(n);
  const withExcess = new Int32Array(n + 1); // how many of the works before one

  const survey = () => {
    for (let work = 0; work < n; work++) {
      withExcess[work + 1] = withExcess[work] + (bytesAt[work] > excessAbove ? 1 : 0);
    }
    idleFor.fill(0);
    for (let at = 0; at < places; at++) {
      const served = servedAt[at];
      for (const read of reads[workAt[at]]) {
        const idle = withExcess[served] - withExcess[Math.min(served, lastReader[read] + 1)];
        if (idle > idleFor[read]) {
          idleFor[read] = idle;
          idleAfter[read] = lastReader[read];
        }
        lastReader[read] = served;
      }
      lastReader[workAt[at]] = served;
    }
  };

  const drop = ({ work, after }: Drop) => droppedAfter[work].push(after);
  const undo = ({ work, after }: Drop) => droppedAfter[work].splice(droppedAfter[work].indexOf(after), 1);
  const costliestFirst = (): readonly Drop[] =>
    droppedAfter.flatMap((all, work) => all.map((after) => ({ work, after })))
      .sort((a, b) => works[b.work].cost - works[a.work].cost);

  const unit = 1e-6 * works.reduce((sum, { cost }) => sum + cost, 0);
  const priceOf = (cost: number) => Math.max(unit, cost) ** COST_EXPONENT;

  /** Undoes drops one by one where `isBetter` says so, the costliest first. */
  const undoWhere = (isBetter: (now: ReturnType<typeof simulate>, before: typeof now) => boolean) => {
    let before = simulate();
    for (const one of costliestFirst()) {
      undo(one);
      const now = simulate();
      if (isBetter(now, before)) before = now;
      else drop(one);
    }
    simulate();
  };

  /** Drops what helps until the peak is within the budget; false where nothing does any more. */
  const dropWhatHelps = (budget: number, mostTrials: number): boolean => {
    let before = simulate();
    survey();
    let [changes, worst] = [0, Infinity];
    // What a drop is worth falls, as a rule, with others: one that is the best and was looked at since is the best of all.
    const queue: { readonly drop: Drop; readonly worth: number; readonly seen: number }[] = [];
    for (const work of counted) {
      const { repeatable, bytes, cost } = works[work];
      if (!repeatable || idleFor[work] === 0) continue;
      const worth = bytes * idleFor[work] / priceOf(cost); // at most
      queue.push({ drop: { work, after: idleAfter[work] }, worth, seen: -1 });
    }
    queue.sort((a, b) => a.worth - b.worth);
    while (before.peak > budget && trials < mostTrials) {
      const best = queue.pop();
      if (best === undefined) return changes > 0;
      if (best.seen === changes) {
        drop(best.drop);
        changes++;
        if (best.worth < worst / 2) {
          worst = best.worth;
          undoBadBargains(0.8 * worst);
        }
        before = simulate();
        survey();
        continue;
      }
      const { work } = best.drop;
      if (idleFor[work] === 0) continue;
      const next = { work, after: idleAfter[work] };
      drop(next);
      const now = simulate();
      undo(next);
      const worth = (before.excess - now.excess) / priceOf(now.cost - before.cost);
      if (worth <= 0) continue; // perhaps later, when others are dropped
      const at = queue.findLastIndex((other) => other.worth <= worth) + 1;
      queue.splice(at, 0, { drop: next, worth, seen: changes });
    }
    return true;
  };

  /** Undoes drops by which a byte costs more than it is worth. */
  const undoBadBargains = (worth: number) =>
    undoWhere((now, before) => {
      const lost = now.excess - before.excess;
      return lost <= 0 || lost / priceOf(Math.max(0, before.cost - now.cost)) < worth;
    });

  /** Brings the peak down to the budget, if that can be; else everything stays as it is. */
  const reduceTo = (budget: number): boolean => {
    excessAbove = MARK * budget;
    const mostTrials = trials + MOST_TRIALS;
    const before = droppedAfter.map((all) => [...all]);
    while (dropWhatHelps(budget, mostTrials) && simulate().peak > budget && trials < mostTrials);
    if (simulate().peak > budget) {
      droppedAfter = before;
      return false;
    }
    undoWhere((now) => now.peak <= budget);
    return true;
  };

  const schedule = () => {
    simulate();
    const again = works.map((): number[] => []); // for each work, what is repeated for it
    for (let at = 0; at < places; at++) if (workAt[at] !== servedAt[at]) again[servedAt[at]].push(workAt[at]);
    return { order: again.flatMap((repeats, work) => [...repeats, work]), peak };
  };
  return { schedule, reduceTo };
};

const twiceAsLong = (array: Int32Array<ArrayBuffer>) => {
  const longer = new Int32Array(2 * array.length);
  longer.set(array);
  return longer;
};
