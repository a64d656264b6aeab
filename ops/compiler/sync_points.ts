/**
 * Synchronisation points: where a program waits for other ranks. Collectives of equal depth are coalesced into one (for
 * pretraining on COCO, 482 collectives into 107 sync points).
 */
import type { Operand } from "../graph/kernel.ts";
import type { Exchange } from "../graph/lowering.ts";
import { isOp, type OpTensor, type Tensor } from "../graph/tensor.ts";
import { exchangeOf } from "./graph.ts";

/** Exchanges between ranks at one point of a program. Segment i of the kernels is between sync points i − 1 and i. */
export interface SyncPoint {
  /** How many kernels run before it. */
  readonly after: number;
  /** What is exchanged there: operands of this rank, and where the results go. */
  readonly exchanges: readonly {
    readonly kind: Exchange["kind"];
    readonly from: Operand;
    readonly to: Operand;
    /** The segment that the result has to be there for. */
    readonly segment: number;
  }[];
}

/**
 * For each tensor the fewest sync points before it: an exchange is one deeper than its operand. Tensors that depend on
 * an overlappable exchange come after all others, so that the others need not wait for it.
 */
export const syncDepths = (live: readonly Tensor[]): ReadonlyMap<Tensor, number> => {
  const depths = new Map<Tensor, number>();
  const deferred = new Set<Tensor>(); // depend on an overlappable exchange; their depths count from the others' end
  for (const x of live) {
    const inputs = isOp(x) ? x.source.inputs : x.source.kind === "reshape" ? [x.source.of] : [];
    const exchange = exchangeOf(x);
    const followsDeferred = inputs.some((input) => deferred.has(input));
    if (followsDeferred || exchange?.overlappable) deferred.add(x);
    if (exchange?.overlappable && !followsDeferred) {
      depths.set(x, 0);
      continue;
    }
    const before = inputs.filter((input) => deferred.has(input) === followsDeferred).map((y) =>
      depths.get(y)!
    );
    depths.set(x, Math.max(0, ...before) + (exchange === null ? 0 : 1));
  }
  const end = 1 + Math.max(0, ...live.filter((x) => !deferred.has(x)).map((x) => depths.get(x)!));
  for (const x of deferred) depths.set(x, end + depths.get(x)!);
  return depths;
};

/**
 * Coalesces exchanges into as few sync points as possible: those that the next depth waits for share the one at the end
 * of their operands' depth. Overlappable ones join the next such point, and their result is needed where it is first
 * read.
 */
export const planSyncPoints = (
  scheduled: readonly OpTensor[],
  depths: ReadonlyMap<Tensor, number>,
  { kernelsBefore, firstUse, operandOf }: {
    /** How many kernels run before those of a depth. */
    readonly kernelsBefore: (depth: number) => number;
    /** The first kernel that reads a tensor. */
    readonly firstUse: (x: Tensor) => number;
    readonly operandOf: (x: Tensor) => Operand;
  },
): readonly SyncPoint[] => {
  const exchanges = scheduled.flatMap((x) => {
    const [input] = x.source.inputs;
    const exchange = exchangeOf(x);
    return exchange === null ? [] : [{ x, input, depth: depths.get(input)!, ...exchange }];
  });
  const blocking = [...new Set(exchanges.filter((one) => !one.overlappable).map(({ depth }) => depth))]
    .sort((a, b) => a - b);
  /** The depth at whose end an exchange takes place. */
  const depthOf = ({ x, depth, overlappable }: (typeof exchanges)[number]) => {
    if (!overlappable) return depth;
    const latest = depths.get(x)! - 1;
    return blocking.find((other) => depth <= other && other <= latest) ?? latest;
  };
  const points = [...Map.groupBy(exchanges, depthOf)].sort(([a], [b]) => a - b)
    .map(([depth, members]) => ({ after: kernelsBefore(depth + 1), members }));
  /** The segment that a kernel is in. */
  const segmentOf = (kernel: number) => points.filter(({ after }) => after <= kernel).length;
  return points.map(({ after, members }, i): SyncPoint => ({
    after,
    exchanges: members.map(({ x, input, kind, overlappable }) => ({
      kind,
      from: operandOf(input),
      to: operandOf(x),
      segment: overlappable ? Math.max(i + 1, segmentOf(firstUse(x))) : i + 1,
    })),
  }));
};
