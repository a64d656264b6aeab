/**
 * Stream compaction: the rows that a mask selects, numbered without gaps. Only the device knows how many there are.
 *
 * Everything follows from one prefix sum, counts[i] = mask[0] + … + mask[i], which never falls: entry r is the first
 * row where the count reaches r + 1.
 */
import { shapeError } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/** WGSL of the u32 for "no row" and "no position": the largest, so that unused entries sort last. */
export const NONE = "0xffffffffu";

/** A selection of the M rows of a table; tensors are u32. */
export interface Selection {
  /** [capacity] The selected rows in ascending order; unused entries are 0xffffffff. */
  readonly indices: Tensor;
  /** [M] The position of every row in `indices`, 0xffffffff where it is not selected. */
  readonly positions: Tensor;
  /** [1] The number of entries of `indices` in use. */
  readonly count: Tensor;
}

/** Selects the rows whose `mask` ([M], f32) is not 0, up to `capacity` of them. No gradient. */
export const compactRows = (mask: Tensor, capacity: number): Selection => {
  const counts = prefixCounts([mask], undefined);
  return {
    indices: indicesOp([counts], { capacity }),
    positions: positionsOp([counts], { capacity }),
    count: countOp([counts], { capacity }),
  };
};

interface Capacity {
  readonly capacity: number;
}

/** mask [M] to counts [M], u32: the inclusive prefix sum. */
const prefixCounts = defineOp("prefixCounts", {
  shape: ([mask]) => mask.shape.length === 1 ? mask.shape : shapeError("selectRows", "mask [M]", mask.shape),
  dtype: "u32",
  kernels: ({ inputs: [mask], output, scratch }) => {
    // An invocation counts a part, and then adds up the totals of all earlier parts: √M parts make both loops short.
    const [M] = mask.shape;
    const each = Math.ceil(Math.sqrt(M));
    const parts = Math.ceil(M / each);
    const totals = scratch([parts], "u32");
    const sizes = { M, each };
    return [
      kernel({
        label: "countParts",
        reads: { mask },
        writes: { totals },
        sizes,
        threads: parts,
        main: /* wgsl */ `
  var total = 0u;
  for (var i = id * p.each; i < min((id + 1u) * p.each, p.M); i++) { total += u32(mask[i] != 0.0); }
  totals[id] = total;`,
      }),
      kernel({
        label: "prefixCounts",
        reads: { mask, totals },
        writes: { counts: output },
        sizes,
        threads: parts,
        main: /* wgsl */ `
  var total = 0u;
  for (var part = 0u; part < id; part++) { total += totals[part]; }
  for (var i = id * p.each; i < min((id + 1u) * p.each, p.M); i++) {
    total += u32(mask[i] != 0.0);
    counts[i] = total;
  }`,
      }),
    ];
  },
});

const indicesOp = defineOp<Capacity>("rowIndices", {
  takes: ["u32"],
  shape: (_, { capacity }) => [capacity],
  dtype: "u32",
  kernels: ({ inputs: [counts], output, attributes: { capacity } }) => [kernel({
    label: "rowIndices",
    reads: { counts },
    writes: { indices: output },
    sizes: { M: counts.shape[0] },
    threads: capacity,
    main: /* wgsl */ `
  var low = 0u; // rows before it are too early,
  var high = p.M; // rows from here on are late enough
  while (low < high) {
    let middle = (low + high) / 2u;
    if (counts[middle] <= id) { low = middle + 1u; } else { high = middle; }
  }
  indices[id] = select(${NONE}, low, low < p.M);`,
  })],
});

const positionsOp = defineOp<Capacity>("rowPositions", {
  takes: ["u32"],
  shape: ([counts]) => counts.shape,
  dtype: "u32",
  kernels: ({ inputs: [counts], output, attributes: { capacity } }) => [kernel({
    label: "rowPositions",
    reads: { counts },
    writes: { positions: output },
    sizes: { capacity },
    threads: counts.shape[0],
    main: /* wgsl */ `
  var before = 0u;
  if (id > 0u) { before = counts[id - 1u]; }
  positions[id] = select(${NONE}, before, counts[id] > before && before < p.capacity);`,
  })],
});

const countOp = defineOp<Capacity>("rowCount", {
  takes: ["u32"],
  shape: () => [1],
  dtype: "u32",
  kernels: ({ inputs: [counts], output, attributes: { capacity } }) => [kernel({
    label: "rowCount",
    reads: { counts },
    writes: { count: output },
    sizes: { M: counts.shape[0], capacity },
    threads: 1,
    main: `count[0] = min(counts[p.M - 1u], p.capacity);`,
  })],
});
