/** Sums that are cut into parts, and what adds the parts up, in a fixed order. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Shape } from "../graph/shape.ts";
import { kernel } from "./wgsl.ts";

/** In how many parts a sum of `length` is cut when `invocations` would compute it otherwise. */
export const splitKFor = (length: number, invocations: number, software: boolean): number => {
  const wanted = Math.ceil((software ? 64 : 32768) / invocations);
  // A part should be long enough to be worth its own copy of the result, and no sum so long that rounding shows.
  return Math.max(1, Math.ceil(length / 8192), Math.min(wanted, Math.floor(length / 64)));
};

/** Adds [groups, parts, columns] up to [groups, columns], in passes of 64 parts. */
export const sumPartials = (
  partial: Operand,
  output: Operand,
  groups: number,
  parts: number,
  columns: number,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const kernels: Kernel[] = [];
  for (let current = partial, left = parts; left > 1;) {
    const next = Math.ceil(left / 64);
    const sum = next === 1 ? output : scratch([groups, next, columns]);
    kernels.push(partialSumKernel(current, sum, groups, left, columns));
    current = sum;
    left = next;
  }
  return kernels;
};

/** [G, parts, C] to [G, ceil(parts / 64), C]. */
const partialSumKernel = (
  from: Operand,
  to: Operand,
  groups: number,
  parts: number,
  columns: number,
): Kernel => {
  const next = Math.ceil(parts / 64);
  return kernel({
    label: "addParts",
    reads: { part: from },
    writes: { sum: to },
    sizes: { parts, next, columns },
    threads: groups * next * columns,
    main: /* wgsl */ `
  let column = id % p.columns;
  let chunk = id / p.columns;
  let block = chunk / p.next;
  let first = chunk % p.next * 64u;
  let last = min(first + 64u, p.parts);
  var total = 0.0;
  for (var i = first; i < last; i++) { total += part[(block * p.parts + i) * p.columns + column]; }
  sum[id] = total;`,
  });
};
