/** What the generators of kernels are given besides the tensor that they compute. */
import type { Operand } from "../graph/kernel.ts";
import type { AdapterTraits, LoweringContext } from "../graph/lowering.ts";
import type { Tensor } from "../graph/tensor.ts";

/** What the kernels of one schedule step depend on. */
export interface EmissionContext {
  /** Whether a tensor is computed inside the kernels that read it. */
  readonly isInlined: (x: Tensor) => boolean;
  /** Next values of the state that overwrite the current one, which it gives. */
  readonly inPlace: ReadonlyMap<Tensor, Tensor>;
  /** Where a tensor is stored. */
  readonly operandOf: (x: Tensor) => Operand;
  readonly scratch: LoweringContext<unknown>["scratch"];
  readonly adapter: AdapterTraits;
  readonly choose: LoweringContext<unknown>["choose"];
}
