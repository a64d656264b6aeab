/**
 * Two-dimensional convolution (cross-correlation), channels-last.
 *
 *     y[n,oy,ox,o] = Σ x[n, oy·stride − pad + ky·dilation, ox·stride − pad + kx·dilation, i] · w[ky,kx,i,o]
 *
 * x: [N, H, W, C], w: [KH, KW, C / groups, O], y: [N, OH, OW, O]. Weights have the output channel last, so that the
 * innermost loop reads neighbouring words; weight files store [O, C / groups, KH, KW]. To add a bias, add a tensor [O].
 */
import { averagePool } from "./average_pool.ts";
import { requireWhole, type Shape, shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, reshape, type Tensor } from "./graph/tensor.ts";
import { conv2dKernels } from "./kernels/conv2d_forward.ts";
import { conv2dInputGradientKernels } from "./kernels/conv2d_input_gradient.ts";
import { conv2dWeightGradientKernels } from "./kernels/conv2d_weight_gradient.ts";
import { type Convolution, outputSize } from "./kernels/convolution.ts";
import { matmul } from "./matmul.ts";

/**
 * x [N, H, W, C] ∗ w [KH, KW, C / groups, O] to [N, OH, OW, O] by the formula above, where
 * OH = ⌊(H + 2·pad − dilation·(KH − 1) − 1) / stride⌋ + 1. By default stride 1, no padding, dilation 1, one group.
 * Throws ShapeError where channels, groups and sizes do not fit.
 */
export const conv2d = (x: Tensor, w: Tensor, options: Partial<Convolution> = {}): Tensor => {
  const convolution = { stride: 1, pad: 0, dilation: 1, groups: 1, ...options };
  const { stride, pad, dilation, groups } = convolution;
  if (x.shape.length !== 4 || w.shape.length !== 4) {
    shapeError("conv2d", "x [N, H, W, C] and w [KH, KW, C / groups, O]", x.shape, w.shape);
  }
  requireWhole("conv2d", { stride, dilation, groups }, 1, x.shape, w.shape);
  requireWhole("conv2d", { pad }, 0, x.shape, w.shape);
  const [KH, KW, C, O] = w.shape;
  // Kernels of 1×1 are matrix products: pixels, all or some of them, times channels.
  if (KH * KW === 1 && pad === 0 && groups === 1 && x.shape[3] === C) {
    return matmul(stride === 1 ? x : averagePool(x, { size: 1, stride }), reshape(w, [C, O]));
  }
  return conv2dOp([x, w], convolution);
};

const conv2dOp = defineOp<Convolution>("conv2d", {
  precision: "half",
  shape: ([x, w], convolution) => {
    const [N, H, W, C] = x.shape;
    const [KH, KW, I, O] = w.shape;
    const OH = outputSize(H, KH, convolution), OW = outputSize(W, KW, convolution);
    return x.shape.length === 4 && C === I * convolution.groups && O % convolution.groups === 0 && OH > 0 &&
        OW > 0
      ? [N, OH, OW, O]
      : shapeError("conv2d", `x [N, H, W, C] and w [KH, KW, C / ${convolution.groups}, O]`, x.shape, w.shape);
  },
  flops: ([, w], output) => 2 * sizeOf(output) * sizeOf(w.shape.slice(0, 3)),
  slices: imageSlices([0]),
  kernels: conv2dKernels,
  backward: ({ inputs: [x, w], gradient, attributes }) => [
    conv2dInputGradient(gradient, w, x.shape, attributes),
    conv2dWeightGradient(x, gradient, w.shape, attributes),
  ],
});

/** The gradient dx of `shape` [N, H, W, C] from dy [N, OH, OW, O] and w [KH, KW, C / groups, O]. */
export const conv2dInputGradient = (dy: Tensor, w: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  inputGradientOp([dy, w], { shape, ...convolution });

const inputGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dInputGradient", {
  precision: "half",
  shape: (_, { shape }) => shape,
  flops: ([dy, w]) => 2 * sizeOf(dy.shape) * sizeOf(w.shape.slice(0, 3)),
  slices: imageSlices([0]),
  kernels: conv2dInputGradientKernels,
  backward: ({ inputs: [dy, w], gradient, attributes }) => [
    conv2d(gradient, w, attributes),
    conv2dWeightGradient(gradient, dy, w.shape, attributes),
  ],
});

/** The gradient dw of `shape` [KH, KW, C / groups, O] from x [N, H, W, C] and dy [N, OH, OW, O]; it has none itself. */
export const conv2dWeightGradient = (x: Tensor, dy: Tensor, shape: Shape, convolution: Convolution): Tensor =>
  weightGradientOp([x, dy], { shape, ...convolution });

const weightGradientOp = defineOp<Convolution & { readonly shape: Shape }>("conv2dWeightGradient", {
  precision: "full",
  shape: (_, { shape }) => shape,
  flops: ([, dy], output) => 2 * sizeOf(dy.shape) * sizeOf(output.slice(0, 3)),
  slices: imageSlices([0, 1], "sum"),
  kernels: conv2dWeightGradientKernels,
});
