/** Batch statistics from what a GEMM's epilogue has left of each tile. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Shape } from "../graph/shape.ts";
import { sumPartials } from "./partial_sums.ts";
import { vectorized } from "./vectorized.ts";
import { kernel } from "./wgsl.ts";

/** The sums that `sumsAroundFirst` makes of x [G, R, C], from what a product left of so many rows each. */
export const shiftedSumsOfPartials = (
  x: Operand,
  { parts, each }: { readonly parts: Operand; readonly each: number },
  output: Operand,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const [G, R, C] = x.shape;
  const ofGroup = R / each, chunks = Math.ceil(ofGroup / 64);
  const partial = chunks === 1 ? output : scratch([G, chunks, 2 * C]);
  const { bind, width, alias } = vectorized(C);
  const sums = kernel({
    label: "sumsOfMoments",
    reads: { x: bind(x), parts: bind(parts) },
    writes: { partial: bind(partial) },
    sizes: { R, lanes: C / width, chunks, ofGroup, each },
    threads: G * chunks * C / width,
    functions: alias,
    main: /* wgsl */ `
  let column = id % p.lanes;
  let chunk = id / p.lanes % p.chunks;
  let block = id / p.lanes / p.chunks;
  let first = x[block * p.R * p.lanes + column];
  var sum = T(0.0);
  var squares = T(0.0);
  for (var i = chunk * 64u; i < min(chunk * 64u + 64u, p.ofGroup); i++) {
    let at = (block * p.ofGroup + i) * 2u * p.lanes + column;
    let apart = parts[at] - first;
    sum += apart;
    squares += parts[at + p.lanes] + f32(p.each) * apart * apart;
  }
  let to = id / p.lanes * 2u * p.lanes + column;
  partial[to] = f32(p.each) * sum;
  partial[to + p.lanes] = squares;`,
  });
  return chunks === 1 ? [sums] : [sums, ...sumPartials(partial, output, G, chunks, 2 * C, scratch)];
};
