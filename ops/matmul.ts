/** Matrix products, batched, with the transposition that gradients need; optionally of the first rows only. */
import { type Kernel, kernel, type Operand, vectors } from "./kernel.ts";
import {
  allRows,
  type Panel,
  panelsOf,
  type RowPanel,
  rowPanels,
  usesPanels,
  wholePanel,
} from "./_panels.ts";
import {
  accumulators,
  lines,
  multiply,
  type Tile,
  tileCells,
  tileFor,
  tileGrid,
  tileOrigin,
} from "./_tile.ts";
import { addUp } from "./fuse.ts";
import {
  defineOp,
  type LoweringContext,
  type Op,
  reshape,
  type Shape,
  shapeError,
  sizeOf,
  type Tensor,
} from "./tensor.ts";
import { transpose } from "./slice.ts";

/**
 * a [..., M, K] times b [K, N] or [..., K, N]: [..., M, N]. With one b for many a the leading axes of a count as rows.
 *
 * With `count` ([1], u32; a and b are matrices then) only the first `count` rows of a are used: the others of the
 * result are left undefined, and the kernel is dispatched for no more rows than there are.
 */
export const matmul = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
  const [K, N] = b.shape.slice(-2);
  const leading = a.shape.slice(0, -1);
  if (a.shape[a.shape.length - 1] !== K) {
    shapeError("matmul", "a [..., M, K] and b [..., K, N]", a.shape, b.shape);
  }
  const batched = b.shape.length > 2;
  if (batched && leading.slice(0, -1).join() !== b.shape.slice(0, -2).join()) {
    shapeError("matmul", "equal leading axes", a.shape, b.shape);
  }
  const rows = leading.reduce((x, y) => x * y, 1);
  const batch = batched ? b.shape.slice(0, -2).reduce((x, y) => x * y, 1) : 1;
  const product = matmulOp([
    reshape(a, [batch, rows / batch, K]),
    reshape(b, [batch, K, N]),
    ...(count === undefined ? [] : [count]),
  ]);
  return reshape(product, [...leading, N]);
};

/**
 * aᵀ·b over rows: a [..., R, M], b [..., R, N] to [..., M, N]. With `count` only the first `count` of the R rows.
 */
export const matmulTransposed = (a: Tensor, b: Tensor, count?: Tensor): Tensor => {
  const [R, M] = a.shape.slice(-2);
  const N = b.shape[b.shape.length - 1];
  const leading = a.shape.slice(0, -2);
  if (b.shape[b.shape.length - 2] !== R || b.shape.slice(0, -2).join() !== leading.join()) {
    shapeError("matmulTransposed", "a [..., R, M] and b [..., R, N]", a.shape, b.shape);
  }
  const batch = leading.reduce((x, y) => x * y, 1);
  const inputs = [reshape(a, [batch, R, M]), reshape(b, [batch, R, N])];
  return reshape(transposedOp(count === undefined ? inputs : [...inputs, count]), [...leading, M, N]);
};

/** Workgroups for as many row tiles as `count` rows need: [ceil(count / perGroup), y, z]. */
export const dispatchOfRows = (count: Operand, output: Operand, perGroup: number, y: number, z: number) =>
  kernel({
    label: "dispatchOfRows",
    reads: { count },
    writes: { workgroups: output },
    sizes: { perGroup, y, z },
    workgroupSize: 1,
    threads: 1,
    main:
      `workgroups[0] = (count[0] + p.perGroup - 1u) / p.perGroup; workgroups[1] = p.y; workgroups[2] = p.z;`,
  });

const matmulOp: Op = defineOp("matmul", {
  precision: "half",
  flops: ([a], output) => 2 * sizeOf(output) * a.shape[2],
  shape: ([a, b]) => [a.shape[0], a.shape[1], b.shape[2]],
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: a.shape[0] === 1 ? [0] : [0, 1], output: "rows" },
  kernels: ({ inputs: [a, b, count], output, adapter, scratch }) => {
    const [batch, M, K] = a.shape;
    const N = b.shape[2];
    if (batch === 1 && count === undefined && usesPanels(M, K, N, adapter)) {
      const { pack, panels } = panelsOf(b, K, N, K % 4 === 0 ? 4 : 1, scratch);
      return [pack, ...panels.map((panel) => productKernel(a, panel, output, tileFor(N, adapter, true)))];
    }
    const tile = tileFor(N, adapter);
    const panel = wholePanel(b, K % 4 === 0 ? K / 4 : K, N / tile.width, N / tile.width);
    if (count === undefined) return [productKernel(a, panel, output, tile)];
    const workgroups = scratch([3], "u32");
    const [, y] = tileGrid(tile, M, N / tile.width, 1);
    return [
      dispatchOfRows(count, workgroups, tile.rows * tile.lanes[0], y, 1),
      productKernel(a, panel, output, tile, workgroups),
    ];
  },
  backward: ({ inputs: [a, b, count], gradient }) => [
    matmulOp([gradient, transpose(b, [0, 2, 1]), ...(count === undefined ? [] : [count])]),
    transposedOp([a, gradient, ...(count === undefined ? [] : [count])]),
    null,
  ],
});

/** Adds a times a panel of b to the panel's columns of y; sets them where the panel is the first. */
const productKernel = (a: Operand, panel: Panel, y: Operand, tile: Tile, indirect?: Operand): Kernel => {
  const [batch, M, K] = a.shape;
  const N = y.shape[2];
  const steps = K % 4 === 0 ? 4 : 1;
  const { operand: b, uniform, pitch, columns } = panel;
  return kernel({
    label: `matmul${steps}${tile.width}`,
    reads: {
      a: steps === 4 ? vectors(a) : a,
      ...(uniform ? {} : { b: tile.width === 4 ? vectors(b) : b }),
    },
    writes: { y: tile.width === 4 ? vectors(y) : y },
    uniforms: uniform ? { b } : {},
    sizes: {
      ...{ M, K: K / steps, N: N / tile.width, k0: panel.firstRow, k1: panel.lastRow },
      ...{ n0: panel.firstColumn, columns, pitch },
    },
    workgroupSize: tile.workgroupSize,
    workgroups: indirect === undefined ? tileGrid(tile, M, columns, batch) : { indirect },
    main: `${tileOrigin(tile)}
  ${lines(tile.columns, (j) => `let n${j} = min(column0 + ${j}u, p.columns - 1u);`)}
  ${
      lines(tile.rows, (i) => `
  let r${i} = group.z * p.M + min(row0 + ${i}u, p.M - 1u);
  let a${i}_at = r${i} * p.K;
  let y${i}_at = r${i} * p.N + p.n0;`)
    }
  ${accumulators(tile)}
  ${uniform ? `if (p.k0 > 0u) { ${tileCells(tile, (i, j) => `c${i}_${j} = y[y${i}_at + n${j}];`)} }` : ""}
  let b_at = group.z * p.K * ${steps}u * p.pitch;
  for (var k = p.k0; k < p.k1; k++) {
    ${lines(tile.rows, (i) => `let a${i} = a[a${i}_at + k];`)}
    let bk = b_at + (k - p.k0) * ${steps}u * p.pitch;
    ${multiply(tile, steps, (u, j) => `b[bk + ${u}u * p.pitch + n${j}]`)}
  }
  ${
      tileCells(tile, (i, j) =>
        `if (row0 + ${i}u < p.M && column0 + ${j}u < p.columns) { y[y${i}_at + n${j}] = c${i}_${j}; }`)
    }`,
  });
};

const transposedOp: Op = defineOp("matmulTransposed", {
  precision: "full",
  slices: ([a, , count]) =>
    count !== undefined ? null : { along: [0, 1], output: a.shape[0] === 1 ? "sum" : "rows" },
  flops: ([a], output) => 2 * sizeOf(output) * a.shape[1],
  shape: ([a, b]): Shape => [a.shape[0], a.shape[2], b.shape[2]],
  kernels: (context) => transposedKernels(context),
  backward: ({ inputs: [a, b, count], gradient }) => {
    const rest = count === undefined ? [] : [count];
    return [matmulOp([b, transpose(gradient, [0, 2, 1]), ...rest]), matmulOp([a, gradient, ...rest]), null];
  },
});

/** The rows are cut into parts that are summed separately and then added, where there are too few tiles otherwise. */
const transposedKernels = ({ inputs: [a, b, count], output, adapter, scratch }: LoweringContext<void>) => {
  const [batch, R, M] = a.shape;
  const N = b.shape[2];
  const panels = batch === 1 && count === undefined ? rowPanels(b, R, N, adapter) : null;
  const tile = tileFor(N, adapter, panels !== null);
  const { width } = tile;
  const steps = M % 4 === 0 ? 4 : 1; // a row tile is then one vector
  const tiles = tileGrid(tile, M, N / width, batch);
  const invocations = tiles[0] * tiles[1] * batch * tile.workgroupSize;
  const parts = panels !== null ? 1 : partsFor(R, invocations, adapter.software);
  const partial = parts === 1 ? output : scratch([batch, parts, M * N]);
  const product = ({ operand, uniform, first, last, before }: RowPanel) =>
    kernel({
      label: `matmulTransposed${steps}${width}`,
      reads: {
        a: steps === 4 ? vectors(a) : a,
        ...(uniform ? {} : { b: width === 4 ? vectors(operand) : operand }),
        ...(count === undefined ? {} : { count }),
      },
      writes: { y: width === 4 ? vectors(partial) : partial },
      uniforms: uniform ? { b: operand } : {},
      sizes: {
        ...{ R, M, M_vectors: M / steps, N: N / width, parts, each: Math.ceil(R / parts) },
        ...{ first, last, before },
      },
      workgroupSize: tile.workgroupSize,
      workgroups: [tiles[0], tiles[1], batch * parts],
      main: `${tileOrigin(tile)}
  ${lines(tile.columns, (j) => `let n${j} = min(column0 + ${j}u, p.N - 1u);`)}
  let y_at = (group.z * p.M + row0) * p.N;
  ${accumulators(tile)}
  ${
        uniform
          ? `if (p.first > 0u) { ${
            tileCells(
              tile,
              (i, j) => `if (row0 + ${i}u < p.M) { c${i}_${j} = y[y_at + ${i}u * p.N + n${j}]; }`,
            )
          } }`
          : ""
      }
  let batch = group.z / p.parts;
  let first = p.first + group.z % p.parts * p.each;
  let last = min(first + p.each, ${count === undefined ? "p.last" : "min(p.last, count[0])"});
  ${
        steps === 4
          ? `let m = min(row0 / 4u, p.M_vectors - 1u);`
          : lines(tile.rows, (i) => `let m${i} = min(row0 + ${i}u, p.M - 1u);`)
      }
  for (var r = first; r < last; r++) {
    let ar = (batch * p.R + r) * p.M_vectors;
    let br = (batch * p.R + r) * p.N - p.before;
    ${
        steps === 4
          ? `let av = a[ar + m];\n${lines(tile.rows, (i) => `let a${i} = av[${i}];`)}`
          : lines(tile.rows, (i) => `let a${i} = a[ar + m${i}];`)
      }
    ${multiply(tile, 1, (_, j) => `b[br + n${j}]`)}
  }
  ${
        tileCells(
          tile,
          (i, j) =>
            `if (row0 + ${i}u < p.M && column0 + ${j}u < p.N) { y[y_at + ${i}u * p.N + n${j}] = c${i}_${j}; }`,
        )
      }`,
    });
  if (panels !== null) return panels.map(product);
  const whole = product(allRows(b, R));
  return parts === 1 ? [whole] : [whole, ...addUp(partial, output, batch, parts, M * N, scratch)];
};

/** In how many parts a sum of `length` is cut when `invocations` would compute it otherwise. */
export const partsFor = (length: number, invocations: number, software: boolean): number => {
  const wanted = Math.ceil((software ? 256 : 32768) / invocations);
  // A part should be long enough to be worth its own copy of the result, and no sum so long that rounding shows.
  return Math.max(1, Math.ceil(length / 8192), Math.min(wanted, Math.floor(length / 64)));
};
