/**
 * Winograd's minimal filtering for convolutions of 3×3 taps and stride 1, dilated or not (Lavin and Gray 2016, "Fast
 * Algorithms for Convolutional Neural Networks"). Tiles of t×t inputs and the weights are transformed to where a tile
 * of m×m outputs, t = m + 2, takes t² multiplications for each pair of channels instead of 9m²; the sums are
 * transformed back.
 *
 *     y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A          dw = Gᵀ [(Bᵀ x B) ⊙ (A dy Aᵀ)] G
 *
 * The products ⊙, summed over channels or tiles, are t² matrix products, one for each point of a transformed tile.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { LoweringContext, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSize, Tile } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { packedProduct, transposedProduct } from "./matrix_product.ts";
import { packedShape, PANEL_ROWS } from "./packing.ts";
import { sumPartials } from "./partial_sums.ts";
import { kernel, type KernelSpec } from "./wgsl.ts";

type Matrix = readonly (readonly number[])[];

/** F(m×m, 3×3): the matrices of the three transforms. */
interface Algorithm {
  /** Outputs of a tile along an axis. */
  readonly m: 2 | 4;
  readonly A: Matrix; // [t, m]
  readonly B: Matrix; // [t, t]
  readonly G: Matrix; // [t, 3]
}

const transposed = (matrix: Matrix): Matrix => matrix[0].map((_, j) => matrix.map((row) => row[j]));

/** F(4×4, 3×3), by interpolation at 0, 1, −1, 2, −2 and infinity, and F(2×2, 3×3), at 0, 1, −1 and infinity. */
const ALGORITHMS: readonly Algorithm[] = [
  {
    m: 4,
    A: [[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [1, 2, 4, 8], [1, -2, 4, -8], [0, 0, 0, 1]],
    B: transposed([
      [4, 0, -5, 0, 1, 0],
      [0, -4, -4, 1, 1, 0],
      [0, 4, -4, -1, 1, 0],
      [0, -2, -1, 2, 1, 0],
      [0, 2, -1, -2, 1, 0],
      [0, 4, 0, -5, 0, 1],
    ]),
    G: [
      [1 / 4, 0, 0],
      [-1 / 6, -1 / 6, -1 / 6],
      [-1 / 6, 1 / 6, -1 / 6],
      [1 / 24, 1 / 12, 1 / 6],
      [1 / 24, -1 / 12, 1 / 6],
      [0, 0, 1],
    ],
  },
  {
    m: 2,
    A: [[1, 0], [1, 1], [1, -1], [0, -1]],
    B: transposed([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    G: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
  },
];

/** The operands of a convolution y = x ∗ w with `pad` zeros around x. */
interface Layer {
  readonly x: Operand; // [N, H, W, C]
  readonly w: Operand; // [3, 3, C, O]; [3, 3, O, C] where backward
  readonly y: Operand; // [N, OH, OW, O]
  readonly pad: number;
  readonly dilation: number;
  /** The gradient with respect to the input: a convolution with the taps in reverse order. */
  readonly backward?: boolean;
}

type Device = Pick<LoweringContext<never>, "adapter" | "scratch">;

/**
 * Multiplications and additions that take as long as one load or store of a transform: on a CPU because its kernels
 * load slowly (lavapipe 25.0, two cores, November 2026), on a GPU, as an estimate, because it computes fast.
 */
const FLOPS_PER_MOVE = 50;

/**
 * The `direct` variants of a convolution with 3×3 taps and those by Winograd's algorithm, in order of estimated time.
 */
export const withWinograd = (layer: Layer, direct: Variants, device: Device): Variants =>
  ordered(layer, direct, (algorithm, tiling) => convolution(layer, algorithm, tiling, device), device);

/** The same for the gradient with respect to the weights: here `y` is the gradient of the output. */
export const withWinogradGradient = (layer: Layer, direct: Variants, device: Device): Variants =>
  ordered(layer, direct, (algorithm, tiling) => weightGradient(layer, algorithm, tiling, device), device);

const ordered = (
  layer: Layer,
  direct: Variants,
  kernels: (algorithm: Algorithm, tiling: Tiling) => readonly Kernel[],
  { adapter }: Device,
): Variants => {
  const { x, y } = layer;
  const [N, , , C] = x.shape;
  const [, OH, OW, O] = y.shape;
  const transformed = ALGORITHMS.flatMap((algorithm) => {
    const tiling = tilingOf(algorithm, layer, adapter);
    if (tiling === null) return [];
    const { tiles } = tiling;
    const t = algorithm.m + 2;
    const flops = t * t * (2 * N * tiles * C * O + FLOPS_PER_MOVE * (2 * N * tiles * (C + O) + C * O));
    const name = `winograd ${algorithm.m}×${algorithm.m}`;
    return [{ flops, variants: { [name]: () => kernels(algorithm, tiling) } }];
  });
  const all = [...transformed, { flops: 2 * 9 * N * OH * OW * C * O, variants: direct }];
  return Object.assign({}, ...all.sort((a, b) => a.flops - b.flops).map(({ variants }) => variants));
};

/**
 * How outputs are cut into tiles, and how many images are transformed together. With a dilation d the pixels of a tile
 * are d apart, and d tiles along each axis are interleaved.
 */
interface Tiling {
  readonly dilation: number;
  /** Tiles of an image along each axis, and in all. */
  readonly down: number;
  readonly across: number;
  readonly tiles: number;
  /** Images that are transformed together. */
  readonly images: number;
}

/** Bytes of transformed images: on a CPU those that its last-level cache holds. Estimates. */
const TRANSFORMED_BYTES = { cpu: 2 ** 24, gpu: 2 ** 28 };

/** The tiling for a layer; null where not even one transformed image fits into a binding. */
const tilingOf = (
  { m }: Algorithm,
  { x, y, dilation }: Layer,
  { cpu, maxBinding }: Device["adapter"],
): Tiling | null => {
  const [N, , , C] = x.shape;
  const [, OH, OW, O] = y.shape;
  const [down, across] = [OH, OW].map((size) => dilation * Math.ceil(Math.ceil(size / dilation) / m));
  const tiles = down * across;
  const bytesPerTile = 4 * (m + 2) ** 2 * Math.max(C, O);
  const bytes = bytesPerTile * tiles;
  const padding = bytesPerTile * (PANEL_ROWS - 1); // of the last panel
  if (bytes + padding > maxBinding) return null;
  const most = Math.min(maxBinding, cpu ? TRANSFORMED_BYTES.cpu : TRANSFORMED_BYTES.gpu) - padding;
  // Chunks are of equal size, since each takes as long as the largest.
  const chunks = Math.ceil(N / Math.max(1, Math.floor(most / bytes)));
  const images = Math.ceil(N / chunks);
  return { dilation, down, across, tiles, images };
};

const convolution = (layer: Layer, algorithm: Algorithm, tiling: Tiling, { adapter, scratch }: Device) => {
  const { x, w, y } = layer;
  const [N, , , C] = x.shape;
  const O = y.shape[3];
  const points = (algorithm.m + 2) ** 2;
  const rows = Math.ceil(tiling.images * tiling.tiles / 4) * 4; // loaded as vectors of four
  const [u, v, products] = [packedShape(points, rows, C), [points, C, O], [points, rows, O]].map((shape) =>
    scratch(shape)
  );
  const product = packedProduct(u, v, products);
  const multiply = gemmKernels(product, bestTile(product, adapter), scratch);
  const kernels = [transformWeights(w, v, algorithm, layer.backward ?? false)];
  for (let first = 0; first < N; first += tiling.images) {
    const chunk = { ...tiling, first, images: Math.min(tiling.images, N - first) };
    kernels.push(
      transformInputs(x, u, layer.pad, algorithm, chunk, PANEL_ROWS),
      ...multiply,
      transformOutputs(products, y, algorithm, chunk, rows),
    );
  }
  return kernels;
};

const weightGradient = (
  { x, w: dw, y: dy, pad }: Layer,
  algorithm: Algorithm,
  tiling: Tiling,
  { adapter, scratch }: Device,
) => {
  const [N, , , C] = x.shape;
  const O = dy.shape[3];
  const points = (algorithm.m + 2) ** 2;
  const chunks = Math.ceil(N / tiling.images);
  const size = points * C * O;
  const sums = scratch([points, C, O]);
  const partials = chunks === 1 ? sums : scratch([chunks, size]);
  const mostRows = tiling.images * tiling.tiles;
  const [u, v] = [C, O].map((channels) => scratch([points, mostRows, channels]));
  const kernels: Kernel[] = [];
  for (let i = 0; i < chunks; i++) {
    const first = i * tiling.images;
    const chunk = { ...tiling, first, images: Math.min(tiling.images, N - first) };
    const rows = chunk.images * tiling.tiles;
    const [a, b] = [u, v].map((operand) => ({ ...operand, shape: [points, rows, operand.shape[2]] }));
    const product = transposedProduct(a, b, { ...partials, offset: i * size, shape: [points, C, O] }, 1);
    kernels.push(
      transformInputs(x, a, pad, algorithm, chunk, 1),
      transformGradients(dy, b, algorithm, chunk),
      ...gemmKernels(product, bestTile(product, adapter), scratch),
    );
  }
  if (chunks > 1) kernels.push(...sumPartials(partials, sums, 1, chunks, size, scratch));
  return [...kernels, transformWeightGradient(sums, dw, algorithm)];
};

/** The GEMM tile that is guessed to be best for the adapter. */
const bestTile = (size: GemmSize, adapter: Device["adapter"]): Tile => {
  let best: Tile | null = null;
  Object.values(tileVariants(size, adapter, (tile) => (best = tile, [])))[0]();
  return best!;
};

/** Images that are transformed together, from the image `first` on. */
interface Chunk extends Tiling {
  readonly first: number;
}

/** WGSL: the channel and tile (`place`) of this invocation; neighbouring invocations have neighbouring channels. */
const INVOCATION = /* wgsl */ `
  let channel = id % p.channels;
  let place = id / p.channels;
  let picture = p.first + place / p.across / p.down;
  let top = first(place / p.across % p.down);
  let left = first(place % p.across);`;

/** WGSL: the first pixel of tile n along an axis; further pixels follow at a distance of the dilation. */
const FIRST = /* wgsl */ `
fn first(n: u32) -> u32 { return n / p.dilation * p.dilation * p.m + n % p.dilation; }`;

/** A kernel with an invocation for each channel of each tile of some images. */
const overTiles = (
  { m }: Algorithm,
  { first, dilation, down, across, images, tiles }: Chunk,
  channels: number,
  spec: Omit<KernelSpec, "functions" | "threads">,
): Kernel =>
  kernel({
    ...spec,
    functions: FIRST,
    sizes: { m, first, dilation, down, across, channels, ...spec.sizes },
    threads: channels * images * tiles,
    main: `${INVOCATION}
  ${spec.main}`,
  });

/** WGSL: the i-th pixel of a tile along an axis. */
const at = (origin: string, i: number) => `(${origin} + ${i}u * p.dilation)`;

/** u[point, tile, channel] = Bᵀ x B, in packed panels of `panel` tiles. */
const transformInputs = (
  x: Operand,
  u: Operand,
  pad: number,
  algorithm: Algorithm,
  chunk: Chunk,
  panel: number,
): Kernel => {
  const [, H, W, C] = x.shape;
  const t = algorithm.m + 2;
  return overTiles(algorithm, chunk, C, {
    label: "winogradInputs",
    reads: { x },
    writes: { u },
    sizes: {
      H,
      W,
      pad,
      panel,
      ofPoint: sizeOf(u.shape) / t / t,
    },
    main: `${
      each(t, 1, (i) => `
  let y${i} = top + ${i}u * p.dilation - p.pad; // above the picture wraps round to a large number
  let x${i} = left + ${i}u * p.dilation - p.pad;
  let row${i} = (picture * p.H + y${i}) * p.W;`)
    }
  let u_at = (place / p.panel * p.channels + channel) * p.panel + place % p.panel;
  ${
      sandwich(
        transposed(algorithm.B),
        (i, j) =>
          `select(0.0, x[(row${i} + min(x${j}, p.W)) * p.channels + channel], y${i} < p.H && x${j} < p.W)`,
        (i, j, value) => `u[${i * t + j}u * p.ofPoint + u_at] = ${value};`,
      )
    }`,
  });
};

/** v[point, tile, channel] = A dy Aᵀ. */
const transformGradients = (dy: Operand, v: Operand, algorithm: Algorithm, chunk: Chunk): Kernel => {
  const [, OH, OW, O] = dy.shape;
  const t = algorithm.m + 2;
  return overTiles(algorithm, chunk, O, {
    label: "winogradGradients",
    reads: { dy },
    writes: { v },
    sizes: { OH, OW },
    main: `let ofPoint = p.threads;
  ${
      sandwich(
        algorithm.A,
        (i, j) =>
          `select(0.0, dy[((picture * p.OH + ${at("top", i)}) * p.OW + ${
            at("left", j)
          }) * p.channels + channel], ${at("top", i)} < p.OH && ${at("left", j)} < p.OW)`,
        (i, j, value) => `v[${i * t + j}u * ofPoint + id] = ${value};`,
      )
    }`,
  });
};

/** y = Aᵀ m A of products [point, rows, channel]. */
const transformOutputs = (
  products: Operand,
  y: Operand,
  algorithm: Algorithm,
  chunk: Chunk,
  rows: number,
): Kernel => {
  const [, OH, OW, O] = y.shape;
  const t = algorithm.m + 2;
  return overTiles(algorithm, chunk, O, {
    label: "winogradOutputs",
    reads: { products },
    writes: { y },
    sizes: { OH, OW, ofPoint: rows * O },
    main: sandwich(
      transposed(algorithm.A),
      (i, j) => `products[${i * t + j}u * p.ofPoint + id]`,
      (i, j, value) =>
        `if (${at("top", i)} < p.OH && ${at("left", j)} < p.OW) { y[((picture * p.OH + ${
          at("top", i)
        }) * p.OW + ${at("left", j)}) * p.channels + channel] = ${value}; }`,
    ),
  });
};

/** v[point, C, O] = G w Gᵀ of w [3, 3, C, O], or of w [3, 3, O, C] in reverse order. */
const transformWeights = (w: Operand, v: Operand, { G }: Algorithm, backward: boolean): Kernel => {
  const [, C, O] = v.shape;
  return kernel({
    label: backward ? "winogradWeightsBackward" : "winogradWeights",
    reads: { w },
    writes: { v },
    sizes: { C, O },
    threads: C * O,
    main: `let at = ${backward ? "id % p.O * p.C + id / p.O" : "id"};
  ${
      sandwich(
        G,
        (i, j) => `w[${backward ? 8 - 3 * i - j : 3 * i + j}u * p.threads + at]`,
        (i, j, value) => `v[${i * G.length + j}u * p.threads + id] = ${value};`,
      )
    }`,
  });
};

/** dw [3, 3, C, O] = Gᵀ m G of sums [point, C, O]. */
const transformWeightGradient = (sums: Operand, dw: Operand, { G }: Algorithm): Kernel =>
  kernel({
    label: "winogradWeightGradient",
    reads: { sums },
    writes: { dw },
    threads: sizeOf(dw.shape) / 9,
    main: sandwich(
      transposed(G),
      (i, j) => `sums[${i * G.length + j}u * p.threads + id]`,
      (i, j, value) => `dw[${3 * i + j}u * p.threads + id] = ${value};`,
    ),
  });

/** WGSL statements that compute L·d·Lᵀ for a square d. */
const sandwich = (
  L: Matrix,
  load: (i: number, j: number) => string,
  store: (i: number, j: number, value: string) => string,
): string => {
  const [rows, columns] = [L.length, L[0].length];
  return `
  ${each(columns, columns, (i, j) => `let d${i}_${j} = ${load(i, j)};`)}
  ${each(rows, columns, (i, j) => `let e${i}_${j} = ${combination(L[i], (k) => `d${k}_${j}`)};`)}
  ${each(rows, rows, (i, j) => store(i, j, combination(L[j], (k) => `e${i}_${k}`)))}`;
};

/** WGSL of Σ factor·term, without multiplications by 0 and 1. */
const combination = (factors: readonly number[], term: (k: number) => string): string => {
  const sum = factors.flatMap((factor, k) => {
    if (factor === 0) return [];
    const size = Math.abs(factor);
    return `${factor < 0 ? "-" : "+"} ${size === 1 ? "" : `${size.toFixed(9)} * `}${term(k)}`;
  }).join(" ");
  return sum.replace(/^\+ /, "");
};

/** Lines of WGSL, one for each element of a matrix. */
const each = (rows: number, columns: number, line: (i: number, j: number) => string): string =>
  Array.from({ length: rows * columns }, (_, at) => line(Math.floor(at / columns), at % columns)).join(
    "\n  ",
  );
