/** What is compared with the peers, in plain data: every contender does the same work on the same numbers. */
import type { StepOptions } from "../../pipeline/pretrain/step.ts";
import type { SegmentationStepOptions } from "../../pipeline/transfer/segmentation/step.ts";

export type Case =
  | { readonly kind: "matmul"; readonly name: string; readonly size: number }
  | ConvolutionCase
  | { readonly kind: "batch norm"; readonly name: string; readonly x: Shape4 }
  /** Steps of SGD on one batch; the answer is the losses of the first three. */
  | { readonly kind: "ResNet-18 step"; readonly name: string; readonly images: Shape4 }
  /** Steps of pretraining on one batch of views; the answer is both losses of the first three. */
  | { readonly kind: "SlotCon step"; readonly name: string; readonly work: SlotConWork }
  /** Steps of fine-tuning on one batch; the answer is the losses of the heads in the first three. */
  | { readonly kind: "segmentation step"; readonly name: string; readonly work: SegmentationWork };

export type Shape4 = readonly [number, number, number, number];

export interface ConvolutionCase {
  readonly kind: "convolution" | "input gradient" | "weight gradient";
  readonly name: string;
  readonly x: Shape4; // [N, H, W, C]
  readonly w: Shape4; // [KH, KW, C, O]
  readonly stride: number;
  readonly dilation: number;
  readonly pad: number; // keeps the size, up to the stride
  readonly y: Shape4; // [N, H / stride, W / stride, O]
}

/** A SlotCon step, and the rates that all its steps have. */
export interface SlotConWork extends StepOptions {
  readonly batchSize: number;
  readonly imageSize: number;
  readonly learningRate: number;
  readonly teacherMomentum: number;
}

/** A step of fine-tuning a segmentor, and the rate that all its steps have. */
export interface SegmentationWork extends SegmentationStepOptions {
  readonly batchSize: number;
  readonly cropSize: number;
  readonly dropout: number;
  readonly learningRate: number;
}

/** A convolution with its gradients; pictures need none. */
const convolution = (name: string, x: Shape4, w: Shape4, { stride = 1, dilation = 1 } = {}): Case[] => {
  const [N, H, W, C] = x, [taps, , , O] = w;
  const pad = dilation * (taps - 1) / 2;
  const y: Shape4 = [N, H / stride, W / stride, O];
  const all = { x, w, stride, dilation, pad, y };
  return [
    { ...all, kind: "convolution", name },
    ...C === 3 ? [] : [{ ...all, kind: "input gradient", name: `${name}: input gradient` } as const],
    { ...all, kind: "weight gradient", name: `${name}: weight gradient` },
  ];
};

const SLOTCON = {
  width: 64,
  dimOut: 256,
  teacherTemp: 0.07,
  studentTemp: 0.1,
  centerMomentum: 0.9,
  groupLossWeight: 0.5,
  optimizer: "lars",
  weightDecay: 1e-5,
  momentum: 0.9,
  learningRate: 1,
  teacherMomentum: 0.99,
} as const;

/** The step of the recipe for PASCAL VOC, but for its batch. */
const VOC = {
  arch: "resnet50",
  width: 64,
  outputStride: 16,
  classes: 21,
  headChannels: 256,
  headDilation: 6,
  concatInput: false,
  auxiliaryWeight: 0,
  auxiliaryChannels: 256,
  dropout: 0,
  alignCorners: true,
  optimizer: "sgd",
  weightDecay: 1e-4,
  momentum: 0.9,
  learningRate: 0.003,
} as const;

/** That of the recipe for ADE20K. */
const ADE20K = {
  ...VOC,
  outputStride: 8,
  classes: 150,
  headChannels: 512,
  headDilation: 1,
  concatInput: true,
  auxiliaryWeight: 0.4,
  dropout: 0.1,
  alignCorners: false,
  weightDecay: 5e-4,
  learningRate: 0.01,
} as const;

/** One like it that takes seconds, at a rate so high that its first three losses tell what a step does. */
const SMALL = {
  ...ADE20K,
  arch: "resnet18",
  width: 16,
  classes: 7,
  headChannels: 64,
  auxiliaryChannels: 32,
  learningRate: 0.1,
} as const;

export const CASES: readonly Case[] = [
  { kind: "matmul", name: "matmul 512³", size: 512 },
  { kind: "matmul", name: "matmul 1024³", size: 1024 },
  ...convolution("conv 3×3 64→64, 8×56²", [8, 56, 56, 64], [3, 3, 64, 64]),
  ...convolution("conv 1×1 256→64, 8×56²", [8, 56, 56, 256], [1, 1, 256, 64]),
  ...convolution("conv 7×7/2 3→64, 8×224²", [8, 224, 224, 3], [7, 7, 3, 64], { stride: 2 }),
  ...convolution("conv 3×3/2 128→128, 8×56²", [8, 56, 56, 128], [3, 3, 128, 128], { stride: 2 }),
  ...convolution("conv 3×3, dilation 2, 512→512, 8×14²", [8, 14, 14, 512], [3, 3, 512, 512], { dilation: 2 }),
  { kind: "batch norm", name: "batch norm 8×56²×64", x: [8, 56, 56, 64] },
  { kind: "ResNet-18 step", name: "ResNet-18 step, 8×64²", images: [8, 64, 64, 3] },
  {
    kind: "SlotCon step",
    name: "SlotCon step, ResNet-18, 8×96²",
    work: { ...SLOTCON, arch: "resnet18", batchSize: 8, imageSize: 96, dimHidden: 1024, numPrototypes: 64 },
  },
  {
    kind: "SlotCon step",
    name: "SlotCon step, coco-800's, 4×224²",
    work: { ...SLOTCON, arch: "resnet50", batchSize: 4, imageSize: 224, dimHidden: 4096, numPrototypes: 256 },
  },
  {
    kind: "segmentation step",
    name: "segmentation step, ResNet-18, 8×96²",
    work: { ...SMALL, batchSize: 8, cropSize: 96 },
  },
  {
    kind: "segmentation step",
    name: "segmentation step, voc's, 2×513²",
    work: { ...VOC, batchSize: 2, cropSize: 513 },
  },
  {
    kind: "segmentation step",
    name: "segmentation step, ade20k's, 2×512²",
    work: { ...ADE20K, batchSize: 2, cropSize: 512 },
  },
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

/** A seed of `numbers` for what has a name. */
export const seedOf = (name: string): number =>
  [...name].reduce((hash, letter) => (hash * 31 + letter.charCodeAt(0)) >>> 0, 7);
