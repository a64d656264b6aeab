/** What an optimiser is: a plain function from a parameter and its gradient to the parameter's next value. */
import type { Shape } from "../../ops/graph/shape.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";

/** One step of an optimiser for one parameter. It builds a part of the step's graph; nothing runs. */
export type Optimizer = (
  parameter: Tensor,
  gradient: Tensor, // of the shape of the parameter
  buffer: BufferOf,
  scalars: OptimizerScalars,
) => OptimizerUpdate;

/**
 * A buffer of this parameter, which starts at zero and lasts from step to step. It has the shape and the layout of the
 * parameter, unless a shape is given. Checkpoints have it as `optimizer.<parameter>.<name>`, and the one without a name
 * as `optimizer.<parameter>`.
 */
export type BufferOf = (name?: string, shape?: Shape) => Tensor;

/** The scalars that an optimiser may use. */
export interface OptimizerScalars {
  /** Learning rate of this step, []. */
  readonly rate: Tensor;
  /** The option of the run; what it multiplies is up to the optimiser. */
  readonly weightDecay: number;
  /** The option of the run: share of itself that a velocity keeps. */
  readonly momentum: number;
}

/** The next values of a parameter and of its buffers, of the same shapes. */
export interface OptimizerUpdate {
  /** The next value of the parameter. */
  readonly parameter: Tensor;
  /** The next value of each buffer. */
  readonly buffers: ReadonlyMap<Tensor, Tensor>;
}
