/** Projector and slot predictor: three layers with batch norm and GELU between them (docs/method.md, section 2). */
import { gelu } from "../../ops/gelu.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import { linear, type Network, normalized, within } from "./network.ts";

/** Widths of projector and predictor. */
export interface HeadSizes {
  /** Width H of the two hidden layers. */
  readonly dimHidden: number;
  /** Width D of the output. */
  readonly dimOut: number;
}

/** The projector: features [..., C] to projections [..., dimOut], the same layers at every location. */
export const projector = (network: Network, features: Tensor, sizes: HeadSizes): Tensor =>
  head(network, features, sizes, { pixelwise: true });

/**
 * The slot predictor: slots [R, dimOut], of which the first `count` ([1], u32) are filled, to predictions of the same
 * shape.
 */
export const predictor = (network: Network, slots: Tensor, sizes: HeadSizes, count: Tensor): Tensor =>
  head(network, slots, sizes, { count });

const head = (
  network: Network,
  x: Tensor,
  { dimHidden, dimOut }: HeadSizes,
  options: { readonly pixelwise?: boolean; readonly count?: Tensor },
): Tensor => {
  const at = within(network, "mlp");
  let y = gelu(normalized(at, "1", linear(at, "0", x, dimHidden, options), options));
  y = gelu(normalized(at, "4", linear(at, "3", y, dimHidden, options), options));
  return linear(at, "6", y, dimOut, options);
};
