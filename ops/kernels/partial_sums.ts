/**
 * Split-K: long sums are cut into partial sums, which are added up in a fixed order, so that results are reproducible.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Shape } from "../graph/shape.ts";
import { kernel } from "./wgsl.ts";

/** Invocations that occupy a CPU or a GPU: estimates. */
const OCCUPYING = { cpu: 64, gpu: 32768 };
/** Terms of a partial sum: at least so many, to be worth another copy of the result. */
const MIN_TERMS = 64;
/** And at most so many, since rounding errors grow with the length of a sum. */
const MAX_TERMS = 8192;

/** How many partial sums to make of sums of `length` terms, which `invocations` would compute without splitting. */
export const splitKFor = (length: number, invocations: number, cpu: boolean): number => {
  const wanted = Math.ceil((cpu ? OCCUPYING.cpu : OCCUPYING.gpu) / invocations);
  return Math.max(1, Math.ceil(length / MAX_TERMS), Math.min(wanted, Math.floor(length / MIN_TERMS)));
};

/** Partial sums that one invocation adds up. */
const PARTIALS_EACH = 64;

/** Adds `partials` [groups, splits, columns] up to `output` [groups, columns], in as many passes as that takes. */
export const sumPartials = (
  partials: Operand,
  output: Operand,
  groups: number,
  splits: number,
  columns: number,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const kernels: Kernel[] = [];
  for (let current = partials, remaining = splits; remaining > 1;) {
    const next = Math.ceil(remaining / PARTIALS_EACH);
    const sum = next === 1 ? output : scratch([groups, next, columns]);
    kernels.push(partialSumKernel(current, sum, groups, remaining, columns));
    current = sum;
    remaining = next;
  }
  return kernels;
};

/** One pass: [groups, splits, columns] to [groups, ⌈splits / PARTIALS_EACH⌉, columns]. */
const partialSumKernel = (
  from: Operand,
  to: Operand,
  groups: number,
  splits: number,
  columns: number,
): Kernel => {
  const next = Math.ceil(splits / PARTIALS_EACH);
  return kernel({
    label: "addParts",
    reads: { part: from },
    writes: { sum: to },
    sizes: { parts: splits, next, columns },
    threads: groups * next * columns,
    main: /* wgsl */ `
  let column = id % p.columns;
  let chunk = id / p.columns;
  let block = chunk / p.next;
  let first = chunk % p.next * ${PARTIALS_EACH}u;
  let last = min(first + ${PARTIALS_EACH}u, p.parts);
  var total = 0.0;
  for (var i = first; i < last; i++) { total += part[(block * p.parts + i) * p.columns + column]; }
  sum[id] = total;`,
  });
};
