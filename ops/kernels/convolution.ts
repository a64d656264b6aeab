/** The attributes of a convolution, which its kernels and those of its gradients share. */
import type { Operand } from "../graph/kernel.ts";

/** Attributes of a convolution, the same along both axes; PyTorch's meaning. */
export interface Convolution {
  /** Input pixels from one output pixel to the next. */
  readonly stride: number;
  /** Zeros around the input. */
  readonly pad: number;
  /** Input pixels from one tap to the next. */
  readonly dilation: number;
  /** Groups of channels that are convolved apart. */
  readonly groups: number;
}

/** Size of the output along an axis of `size` with a kernel of `taps`. */
export const outputSize = (size: number, taps: number, { stride, pad, dilation }: Convolution): number =>
  Math.floor((size + 2 * pad - dilation * (taps - 1) - 1) / stride) + 1;

/** Whether Winograd's algorithm computes a convolution with weights [KH, KW, C, O], and its gradients. */
export const suitsWinograd = (
  { shape: [KH, KW] }: Pick<Operand, "shape">,
  { stride, groups }: Convolution,
): boolean => KH === 3 && KW === 3 && stride === 1 && groups === 1;
