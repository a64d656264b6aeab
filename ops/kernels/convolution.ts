/** What the kernels of a convolution and of its gradients share. */
import type { Operand } from "../graph/kernel.ts";

export interface Convolution {
  readonly stride: number;
  readonly pad: number;
  readonly dilation: number;
  readonly groups: number;
}

/** Size of the output along an axis of `size` with a kernel of `taps`. */
export const outputSize = (size: number, taps: number, { stride, pad, dilation }: Convolution): number =>
  Math.floor((size + 2 * pad - dilation * (taps - 1) - 1) / stride) + 1;

export const suitsWinograd = (
  { shape: [KH, KW] }: Pick<Operand, "shape">,
  { stride, groups }: Convolution,
): boolean => KH === 3 && KW === 3 && stride === 1 && groups === 1;
