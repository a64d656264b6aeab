/**
 * Tensors and what is computed with them: ops, gradients, the compiler from graphs to WebGPU kernels, and the runtime.
 * Runs in Deno and, bundled, in browsers: of Deno and Node it imports nothing.
 *
 * An op describes its result; nothing runs until a graph is compiled:
 *
 * ```ts
 * import { Effect } from "effect";
 * import { constant, evaluate, matmul, native, softmax } from "@slotcon/slotcon/ops";
 *
 * const x = constant([1, 2, 3, 4], [2, 2]);
 * const values = evaluate(softmax(matmul(x, x))); // Float32Array of 4, row by row
 * console.log(await Effect.runPromise(values.pipe(Effect.provide(native))));
 * ```
 *
 * Images and feature maps are [N, H, W, C], channels last.
 *
 * @module
 */

// Tensors: what a graph is made of.
export { constant, input, reshape, stopGradient } from "./graph/tensor.ts";
export { constantData, inputName, isOp, storageOf } from "./graph/tensor.ts";
export type { ConstantSource, InputSource, OpSource, ReshapeSource, Source } from "./graph/tensor.ts";
export type { OpTensor, Tensor } from "./graph/tensor.ts";
export {
  broadcastShape,
  type DType,
  sameShape,
  type Shape,
  ShapeError,
  shapeError,
  sizeOf,
} from "./graph/shape.ts";

// Gradients.
export { gradients, gradientsWhereReached } from "./autodiff.ts";

// Elementwise ops, which the compiler fuses.
export { type Binary, defineElementwise, tensorOf, type Unary, type Value } from "./arithmetic.ts";
export { add, div, maximum, mul, sub } from "./arithmetic.ts";
export { exp, log, neg, relu, rsqrt, sqrt } from "./arithmetic.ts";
export { broadcastTo, greater, greaterEqual, where } from "./arithmetic.ts";
export { addBias } from "./add_bias.ts";
export { concat } from "./concat.ts";
export { gelu } from "./gelu.ts";
export { slice, transpose } from "./slice.ts";
export { toFloat } from "./to_float.ts";

// Sums and normalisation.
export { columnSums, mean, rowSums, sum, sumTo, totals } from "./reduce.ts";
export { normalize } from "./normalize.ts";
export { logSoftmax, softmax } from "./softmax.ts";
export { crossEntropyRows } from "./cross_entropy.ts";
export { enlargedCrossEntropy, type Enlarging, type PixelLosses } from "./enlarged_cross_entropy.ts";
export {
  batchMoments,
  batchNorm,
  batchNormByRunning,
  combinedMoments,
  type Moments,
  runningAfter,
} from "./batch_norm.ts";
export { nonFinite } from "./non_finite.ts";

// Matrix products, convolutions and pooling.
export { matmul, matmulTransposed } from "./matmul.ts";
export { conv2d } from "./conv2d.ts";
export type { Convolution } from "./kernels/convolution.ts";
export { averagePool } from "./average_pool.ts";
export { maxPool } from "./max_pool.ts";
export { averageWindows, type Windows } from "./average_windows.ts";
export { resizeBilinear } from "./resize_bilinear.ts";
export type { Resizing } from "./kernels/bilinear.ts";
export { roiAlign } from "./roi_align.ts";

// Rows chosen by their values.
export { argmaxCounts, argmaxUsed } from "./argmax_counts.ts";
export { argmaxMap, type MapSize } from "./argmax_map.ts";
export { type PixelSize, windowArgmax, type WindowLayout } from "./window_argmax.ts";
export { compactRows, type Selection } from "./compact_rows.ts";
export { gatherIndices, gatherRows, type RowIndices, scatterRows } from "./gather_rows.ts";

// Images.
export { type AugmentationRowSize, augmentationRowWords } from "./image/augmentation_row.ts";
export { colorJitter } from "./image/color_jitter.ts";
export { cropResize } from "./image/crop_resize.ts";
export { gaussianBlur } from "./image/gaussian_blur.ts";
export { labelBytes } from "./image/label_bytes.ts";
export { normalizeBytes, normalizePixels, type PixelStatistics } from "./image/normalize_pixels.ts";
export { solarize } from "./image/solarize.ts";

// What ranks exchange.
export { allGather, allReduceSum } from "./collective.ts";
export { Collective, CollectiveError, gatherTexts } from "./runtime/collective.ts";

// Ops of your own.
export { defineOp } from "./graph/tensor.ts";
export type { BackwardContext, Op, OpDefinition, Slices } from "./graph/tensor.ts";
export type { Access, Axis, Layout } from "./graph/layout.ts";
export type { Exchange, LoweringContext, StatisticsEpilogue, Variants } from "./graph/lowering.ts";
export type { Binding, Kernel, Narrowing, Operand } from "./graph/kernel.ts";
export { kernel, type KernelSpec, type Vectors, vectors } from "./kernels/wgsl.ts";

// The device.
export { dawn, layers, native } from "./runtime/adapters.ts";
export { Gpu, GpuError, type GpuFailure, type Prefix, STORAGE } from "./runtime/gpu.ts";
export type { AdapterReport, AdapterTraits, Backend } from "./graph/lowering.ts";

// Programs: compiled graphs.
export type { Graph } from "./compiler/graph.ts";
export { compile, evaluate, type Program } from "./runtime/program.ts";
export { type ProgramSet, programSet } from "./runtime/program_set.ts";
export { IN_FLIGHT, type Outputs } from "./runtime/outputs.ts";
export type { DeviceState, Upload } from "./runtime/buffers.ts";
export { type Arena, type Demand, makeArena, type Placement, type Share } from "./runtime/arena.ts";
export type { ProfiledRun, ProfileRun, TimedKernel, TimedWork } from "./runtime/profiler.ts";
export { PlanError } from "./compiler/limits.ts";

// How graphs are lowered: for tuning, and to see what a program is made of.
export { type FusedGraph, lower, type Lowered, type Recomputed } from "./compiler/lower.ts";
export type { SyncPoint } from "./compiler/sync_points.ts";
export type { Lifetime, MemoryPlan, Slot } from "./compiler/memory_plan.ts";
export { type Choice, type Choices, TunedChoices } from "./compiler/kernel_selection.ts";
export { tune, type Tuned } from "./runtime/autotune.ts";
export {
  type DumpedKernel,
  type DumpedProgram,
  type DumpedSyncPoint,
  type DumpOptions,
  dumpProgram,
} from "./compiler/dump.ts";
