/**
 * What a pipeline of your own is made from. Each name is documented where it is defined.
 *
 * A run is `pretrain(config, images, step)`: the step is a pure function from views and rates to the next state and
 * metrics, composed from the stages and ops below; leave it out for SlotCon itself.
 */

// A run: configuration, pictures, device.
export { type Config, configure, type PresetName, PRESETS } from "./pipeline/config.ts";
export { type Dataset, listImages } from "./data/image_list.ts";
export { dawn, Gpu, native } from "./ops/gpu.ts";
export { ranks } from "./pipeline/ranks/mpi.ts";
export { rankGpu } from "./pipeline/ranks/device.ts";
export { layerTuned } from "./pipeline/tuned_kernels.ts";
export { pretrain } from "./pipeline/pretrain.ts";
export type { StepBuilder } from "./pipeline/step_graph.ts";
export { type Metrics, Progress, type RunPlan, type StepReport } from "./pipeline/report.ts";

// Weights: any file in, any other out.
export { openWeights, type WeightsFile } from "./pipeline/interop/weights_file.ts";
export { convert, type Format } from "./pipeline/interop/convert.ts";
export { type Checkpoint, latestCheckpoint, loadCheckpoint } from "./pipeline/checkpoint_file.ts";

// Stages of a step: each takes tensors and gives tensors.
export { augment } from "./pipeline/augment.ts";
export { forward, type ModelOptions, student, teacher } from "./pipeline/forward.ts";
export { cosineScores, type Grouped, slotGrouping } from "./pipeline/slot_grouping.ts";
export { aligned, groupingLoss, slotContrast, view } from "./pipeline/loss.ts";
export {
  type Objective,
  optimize,
  type Rates,
  slotConLoss,
  slotConStep,
  type Step,
  type StepOptions,
  type Views,
} from "./pipeline/step.ts";

// Networks: functions that ask for their parameters by name.
export {
  linear,
  type Network,
  normalized,
  parameter,
  StateBuilder,
  within,
} from "./pipeline/model/network.ts";
export { encoder } from "./pipeline/model/resnet.ts";
export { predictor, projector } from "./pipeline/model/heads.ts";
export { lars } from "./pipeline/optim/lars.ts";
export { type Optimizer, sgd } from "./pipeline/optim/sgd.ts";
export { lossScale } from "./pipeline/loss_scale.ts";

// Tensors and ops.
export { constant, defineOp, input, reshape, type Shape, stopGradient, type Tensor } from "./ops/tensor.ts";
export { kernel } from "./ops/kernel.ts";
export {
  add,
  defineElementwise,
  div,
  exp,
  greater,
  greaterEqual,
  log,
  maximum,
  mul,
  neg,
  relu,
  rsqrt,
  sqrt,
  sub,
  where,
} from "./ops/arithmetic.ts";
export { columnSums, mean, rowSums, sum } from "./ops/reduce.ts";
export { slice, transpose } from "./ops/slice.ts";
export { conv2d } from "./ops/conv2d.ts";
export { matmul, matmulTransposed } from "./ops/matmul.ts";
export { gelu } from "./ops/gelu.ts";
export { normalize } from "./ops/normalize.ts";
export { logSoftmax, softmax } from "./ops/softmax.ts";
export { maxPool } from "./ops/max_pool.ts";
export { averagePool } from "./ops/average_pool.ts";
export { roiAlign } from "./ops/roi_align.ts";
export { gradients } from "./ops/autodiff.ts";
export { compile, evaluate, type Program } from "./ops/compile.ts";
