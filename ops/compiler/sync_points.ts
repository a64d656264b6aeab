/** Where a program waits for other ranks: collectives that are ready together share a sync point. */
import type { Operand } from "../graph/kernel.ts";
import type { Exchange } from "../graph/lowering.ts";
import type { Tensor } from "../graph/tensor.ts";

/** Exchanges that are made together. Segment i of the kernels lies between stops i − 1 and i. */
export interface SyncPoint {
  /** How many kernels run before it. */
  readonly after: number;
  readonly exchanges: readonly {
    readonly kind: Exchange["kind"];
    readonly from: Operand;
    readonly to: Operand;
    /** The segment that the result has to be there for. */
    readonly segment: number;
  }[];
}

/**
 * How many stops lie before each tensor at least: an exchange ends a level. What depends on a late exchange comes after
 * all else.
 */
export const syncDepths = (live: readonly Tensor[]): ReadonlyMap<number, number> => {
  const levels = new Map<number, number>();
  const late = new Set<number>(); // their levels count from the last one on
  for (const x of live) {
    const { source } = x;
    const inputs = source.kind === "op" ? source.inputs : source.kind === "reshape" ? [source.of] : [];
    const exchange = source.kind === "op" ? source.op.exchange : undefined;
    const isLate = inputs.some(({ id }) => late.has(id));
    const above = inputs.filter(({ id }) => late.has(id) === isLate).map(({ id }) => levels.get(id)!);
    if (isLate || exchange?.overlappable) late.add(x.id);
    const level = exchange?.overlappable && !isLate
      ? 0
      : Math.max(0, ...above) + (exchange === undefined ? 0 : 1);
    levels.set(x.id, level);
  }
  const last = 1 + Math.max(0, ...live.filter(({ id }) => !late.has(id)).map(({ id }) => levels.get(id)!));
  for (const id of late) levels.set(id, last + levels.get(id)!);
  return levels;
};

/**
 * Gathers exchanges into as few stops as possible: those that the next level waits for are made together once their own
 * level is done; late ones join the next such stop, and what they give is needed only where it is first read.
 */
export const planSyncPoints = (
  scheduled: readonly Tensor[],
  levels: ReadonlyMap<number, number>,
  { startOf, firstUse, operandOf }: {
    readonly startOf: (level: number) => number;
    readonly firstUse: (x: Tensor) => number;
    readonly operandOf: (x: Tensor) => Operand;
  },
): readonly SyncPoint[] => {
  const exchanges = scheduled.flatMap((x) => {
    if (x.source.kind !== "op" || x.source.op.exchange === undefined) return [];
    const [input] = x.source.inputs;
    return [{ x, input, level: levels.get(input.id)!, ...x.source.op.exchange }];
  });
  const urgent = [...new Set(exchanges.filter(({ overlappable }) => !overlappable).map(({ level }) => level))]
    .sort((a, b) => a - b);
  const stopLevel = ({ x, level, overlappable }: (typeof exchanges)[number]) =>
    overlappable
      ? urgent.find((other) => other >= level && other < levels.get(x.id)!) ?? levels.get(x.id)! - 1
      : level;
  const grouped = [...Map.groupBy(exchanges, stopLevel)].sort(([a], [b]) => a - b);
  const afters = grouped.map(([level]) => startOf(level + 1));
  return grouped.map(([, members], i): SyncPoint => ({
    after: afters[i],
    exchanges: members.map(({ x, input, kind, overlappable }) => ({
      kind,
      from: operandOf(input),
      to: operandOf(x),
      segment: overlappable ? Math.max(i + 1, afters.filter((after) => after <= firstUse(x)).length) : i + 1,
    })),
  }));
};
