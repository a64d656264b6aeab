/** Which GEMMs take batch statistics of what they store. */
import { storageOf, type Tensor } from "../graph/tensor.ts";
import type { ColumnSums } from "../reduce.ts";

/** What sums around the first row are made of: by what is stored, those sums and the groups of rows [G, R, C] that it is. */
export const statisticsEpilogues = (
  scheduled: readonly Tensor[],
): ReadonlyMap<Tensor, { readonly sums: Tensor; readonly of: Tensor }> =>
  new Map(scheduled.flatMap((x) => {
    if (x.source.kind !== "op" || x.source.op.reduction !== "columns") return [];
    const { aroundFirst } = x.source.attributes as ColumnSums;
    return aroundFirst === undefined ? [] : [[storageOf(aroundFirst), { sums: x, of: aroundFirst }]];
  }));
