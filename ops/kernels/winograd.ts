/**
 * Convolutions of 3×3 taps and stride 1, dilated or not, by fewer multiplications (Lavin and Gray 2016, "Fast Algorithms for
 * Convolutional Neural Networks"): patches of t×t inputs and the weights are transformed to where a patch of m×m outputs,
 * t = m + 2, takes t² multiplications instead of 9m², one a pair of channels; what they sum to is transformed back.
 *
 *     y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A          dw = Gᵀ [(Bᵀ x B) ⊙ (A dy Aᵀ)] G
 *
 * The products ⊙, summed over channels or patches, are t² products of matrices.
 */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { LoweringContext, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { gemmKernels } from "./gemm.ts";
import type { GemmSize, Tile } from "./gemm_spec.ts";
import { tileVariants } from "./gemm_tiles.ts";
import { productOfPanels, transposedProduct } from "./matrix_product.ts";
import { packedShape, PANEL_ROWS } from "./packing.ts";
import { sumPartials } from "./partial_sums.ts";
import { kernel } from "./wgsl.ts";

type Matrix = readonly (readonly number[])[];

interface Algorithm {
  /** Outputs of a patch along an axis. */
  readonly m: 2 | 4;
  readonly A: Matrix; // [t, m]
  readonly B: Matrix; // [t, t]
  readonly G: Matrix; // [t, 3]
}

const transposed = (matrix: Matrix): Matrix => matrix[0].map((_, j) => matrix.map((row) => row[j]));

/** Interpolation at 0, 1, −1 and infinity, or at 2 and −2 as well. */
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

/** What a convolution is made of; y = x ∗ w with `pad` zeros around x. */
interface Layer {
  readonly x: Operand; // [N, H, W, C]
  readonly w: Operand; // [3, 3, C, O]; [3, 3, O, C] where backward
  readonly y: Operand; // [N, OH, OW, O]
  readonly pad: number;
  readonly dilation: number;
  /** From outputs to inputs: a convolution with the taps in reverse order. */
  readonly backward?: boolean;
}

type Device = Pick<LoweringContext<never>, "adapter" | "scratch">;

/**
 * An element that is moved takes as long as so many multiplications and additions: about the same on a CPU, whose
 * kernels are slow at memory, and on a GPU, whose memory is slow for its kernels.
 */
const FLOPS_PER_MOVE = 50;

/** Ways to convolve with 3×3 taps, and those given; the ones that should be fastest first. */
export const withWinograd = (layer: Layer, direct: Variants, device: Device): Variants =>
  ordered(layer, direct, (algorithm, tiling) => convolution(layer, algorithm, tiling, device), device);

/** The same for the gradient with respect to the weights: here y is the gradient of the output. */
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
  const ways = ALGORITHMS.flatMap((algorithm) => {
    const tiling = tilingOf(algorithm, layer, adapter);
    if (tiling === null) return [];
    const { patches } = tiling;
    const t = algorithm.m + 2;
    const flops = t * t * (2 * N * patches * C * O + FLOPS_PER_MOVE * (2 * N * patches * (C + O) + C * O));
    const name = `winograd ${algorithm.m}×${algorithm.m}`;
    return [{ flops, variants: { [name]: () => kernels(algorithm, tiling) } }];
  });
  const all = [...ways, { flops: 2 * 9 * N * OH * OW * C * O, variants: direct }];
  return Object.assign({}, ...all.sort((a, b) => a.flops - b.flops).map(({ variants }) => variants));
};

/**
 * How pictures are cut into patches, and how many pictures go together. With a dilation the pixels of a patch lie that
 * far apart, and as many patches along each axis lie within each other.
 */
interface Tiling {
  readonly dilation: number;
  readonly down: number;
  readonly across: number;
  readonly patches: number; // of a picture
  readonly pictures: number;
}

/** Transformed pictures should fit a cache where there is no memory to speak of, and a binding in any case. */
const tilingOf = (
  { m }: Algorithm,
  { x, y, dilation }: Layer,
  { cpu, maxBinding }: Device["adapter"],
): Tiling | null => {
  const [N, , , C] = x.shape;
  const [, OH, OW, O] = y.shape;
  const [down, across] = [OH, OW].map((size) => dilation * Math.ceil(Math.ceil(size / dilation) / m));
  const patches = down * across;
  const bytesOfPatch = 4 * (m + 2) ** 2 * Math.max(C, O);
  const bytes = bytesOfPatch * patches;
  const filling = bytesOfPatch * (PANEL_ROWS - 1); // of the last panel
  if (bytes + filling > maxBinding) return null;
  const most = Math.min(maxBinding, (cpu ? 16 : 256) * 2 ** 20) - filling;
  const parts = Math.ceil(N / Math.max(1, Math.floor(most / bytes))); // of one size: each takes the time of the largest
  const pictures = Math.ceil(N / parts);
  return { dilation, down, across, patches, pictures };
};

const convolution = (layer: Layer, algorithm: Algorithm, tiling: Tiling, { adapter, scratch }: Device) => {
  const { x, w, y } = layer;
  const [N, , , C] = x.shape;
  const O = y.shape[3];
  const points = (algorithm.m + 2) ** 2;
  const rows = Math.ceil(tiling.pictures * tiling.patches / 4) * 4; // vectors of them are loaded
  const [u, v, products] = [packedShape(points, rows, C), [points, C, O], [points, rows, O]].map((shape) =>
    scratch(shape)
  );
  const product = productOfPanels(u, v, products);
  const multiply = gemmKernels(product, bestTile(product, adapter), scratch);
  const kernels = [transformWeights(w, v, algorithm, layer.backward ?? false)];
  for (let first = 0; first < N; first += tiling.pictures) {
    const pictures = { ...tiling, first, pictures: Math.min(tiling.pictures, N - first) };
    kernels.push(
      transformInputs(x, u, layer.pad, algorithm, pictures, PANEL_ROWS),
      ...multiply,
      transformOutputs(products, y, algorithm, pictures, rows),
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
  const parts = Math.ceil(N / tiling.pictures);
  const size = points * C * O;
  const sums = scratch([points, C, O]);
  const partial = parts === 1 ? sums : scratch([parts, size]);
  const rowsOfAll = tiling.pictures * tiling.patches;
  const [u, v] = [C, O].map((channels) => scratch([points, rowsOfAll, channels]));
  const kernels: Kernel[] = [];
  for (let part = 0; part < parts; part++) {
    const first = part * tiling.pictures;
    const pictures = { ...tiling, first, pictures: Math.min(tiling.pictures, N - first) };
    const rows = pictures.pictures * tiling.patches;
    const [a, b] = [u, v].map((operand) => ({ ...operand, shape: [points, rows, operand.shape[2]] }));
    const product = transposedProduct(a, b, { ...partial, offset: part * size, shape: [points, C, O] }, 1);
    kernels.push(
      transformInputs(x, a, pad, algorithm, pictures, 1),
      transformGradients(dy, b, algorithm, pictures),
      ...gemmKernels(product, bestTile(product, adapter), scratch),
    );
  }
  if (parts > 1) kernels.push(...sumPartials(partial, sums, 1, parts, size, scratch));
  return [...kernels, transformWeightGradient(sums, dw, algorithm)];
};

const bestTile = (size: GemmSize, adapter: Device["adapter"]): Tile => {
  let best: Tile | null = null;
  Object.values(tileVariants(size, adapter, (tile) => (best = tile, [])))[0]();
  return best!;
};

interface Pictures extends Tiling {
  readonly first: number;
}

/** WGSL: which channel of which patch (`place`) this invocation has, with neighbours in neighbouring channels. */
const PATCH = /* wgsl */ `
  let channel = id % p.channels;
  let place = id / p.channels;
  let picture = p.first + place / p.across / p.down;
  let top = first(place / p.across % p.down);
  let left = first(place % p.across);`;

/** The first pixel of a patch along an axis; further ones follow at a distance of the dilation. */
const FIRST = /* wgsl */ `
fn first(n: u32) -> u32 { return n / p.dilation * p.dilation * p.m + n % p.dilation; }`;

/** A kernel for each channel of each patch of some pictures. */
const overPatches = (
  { m }: Algorithm,
  { first, dilation, down, across, pictures, patches }: Pictures,
  channels: number,
  spec: Omit<Parameters<typeof kernel>[0], "functions" | "threads">,
): Kernel =>
  kernel({
    ...spec,
    functions: FIRST,
    sizes: { m, first, dilation, down, across, channels, ...spec.sizes },
    threads: channels * pictures * patches,
    main: `${PATCH}
  ${spec.main}`,
  });

const at = (origin: string, i: number) => `(${origin} + ${i}u * p.dilation)`;

/** u[point, patch, channel] = Bᵀ x B, in panels of so many patches. */
const transformInputs = (
  x: Operand,
  u: Operand,
  pad: number,
  algorithm: Algorithm,
  pictures: Pictures,
  panel: number,
): Kernel => {
  const [, H, W, C] = x.shape;
  const t = algorithm.m + 2;
  return overPatches(algorithm, pictures, C, {
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

/** v[point, patch, channel] = A dy Aᵀ. */
const transformGradients = (dy: Operand, v: Operand, algorithm: Algorithm, pictures: Pictures): Kernel => {
  const [, OH, OW, O] = dy.shape;
  const t = algorithm.m + 2;
  return overPatches(algorithm, pictures, O, {
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
  pictures: Pictures,
  rows: number,
): Kernel => {
  const [, OH, OW, O] = y.shape;
  const t = algorithm.m + 2;
  return overPatches(algorithm, pictures, O, {
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

/** Statements that compute L·d·Lᵀ for a square d. */
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

/** Σ factor·term, without what is multiplied by 0 or 1. */
const combination = (factors: readonly number[], term: (k: number) => string): string => {
  const sum = factors.flatMap((factor, k) => {
    if (factor === 0) return [];
    const size = Math.abs(factor);
    return `${factor < 0 ? "-" : "+"} ${size === 1 ? "" : `${size.toFixed(9)} * `}${term(k)}`;
  }).join(" ");
  return sum.replace(/^\+ /, "");
};

const each = (rows: number, columns: number, line: (i: number, j: number) => string): string =>
  Array.from({ length: rows * columns }, (_, at) => line(Math.floor(at / columns), at % columns)).join(
    "\n  ",
  );
