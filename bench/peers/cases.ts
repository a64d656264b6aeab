/** What is compared with the peers, in plain data: every contender does the same work on the same numbers. */

export type Case =
  | { readonly kind: "matmul"; readonly name: string; readonly size: number }
  | {
    readonly kind: "convolution" | "input gradient" | "weight gradient";
    readonly name: string;
    readonly x: Shape4; // [N, H, W, C]
    readonly w: Shape4; // [KH, KW, C, O]; the padding keeps the size
  }
  | { readonly kind: "batch norm"; readonly name: string; readonly x: Shape4 }
  /** Steps of SGD on one batch; the answer is the losses of the first three. */
  | { readonly kind: "ResNet-18 step"; readonly name: string; readonly images: Shape4 };

export type Shape4 = readonly [number, number, number, number];

const x: Shape4 = [8, 56, 56, 64], w: Shape4 = [3, 3, 64, 64];

export const CASES: readonly Case[] = [
  { kind: "matmul", name: "matmul 512³", size: 512 },
  { kind: "matmul", name: "matmul 1024³", size: 1024 },
  { kind: "convolution", name: "conv 3×3 64→64, 8×56²", x, w },
  { kind: "input gradient", name: "its input gradient", x, w },
  { kind: "weight gradient", name: "its weight gradient", x, w },
  { kind: "convolution", name: "conv 1×1 256→64, 8×56²", x: [8, 56, 56, 256], w: [1, 1, 256, 64] },
  { kind: "batch norm", name: "batch norm 8×56²×64", x },
  { kind: "ResNet-18 step", name: "ResNet-18 step, 8×64²", images: [8, 64, 64, 3] },
];

export const CLASSES = 1000;
export const RATE = 0.01;
export const MOMENTUM = 0.9;

export const sizeOf = (shape: readonly number[]): number =>
  shape.reduce((product, size) => product * size, 1);

/** Deterministic numbers in (-scale, scale), different for each seed. */
export const numbers = (shape: readonly number[], seed: number, scale = 1): Float32Array => {
  let state = Math.imul(seed + 1, 2654435761) >>> 0;
  return Float32Array.from({ length: sizeOf(shape) }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return scale * (state / 2 ** 31 - 1);
  });
};
