/** An estimate of what it takes to make a tensor, which rematerialisation goes by. */
import type { AdapterTraits } from "../graph/lowering.ts";
import type { Tensor } from "../graph/tensor.ts";

/** About how long it takes to make a tensor: by its operations, and by the bytes that it is and is made from. */
export const secondsOf = ({ source, shape }: Tensor, bytes: number, { cpu }: AdapterTraits): number => {
  const flops = source.kind === "op" ? source.op.flops?.(source.inputs, shape) ?? 0 : 0;
  return cpu ? flops / 2e10 + bytes / 1e10 : flops / 1e13 + bytes / 5e11;
};
