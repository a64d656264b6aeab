/**
 * What a pipeline of your own is made from. Each name is documented where it is defined.
 *
 * A run is `pretrain(config, images, step)`: the step is a pure function from views and rates to the next state and
 * metrics, composed from the stages and ops below; leave it out for SlotCon itself.
 */

// A run: configuration, pictures, device.

export { type Config, configure, type PresetName, PRESETS } from "./pipeline/pretrain/config.ts";
export { type Dataset, listImages } from "./data/datasets/image_list.ts";
export { dawn, native } from "./ops/runtime/adapters.ts";
export { Gpu } from "./ops/runtime/gpu.ts";
export { ranks } from "./pipeline/ranks/mpi.ts";
export { rankGpu } from "./pipeline/ranks/device.ts";
export { layerTuned } from "./pipeline/run/tuned_kernels.ts";
export { pretrain } from "./pipeline/pretrain/pretrain.ts";
export { type StepBuilder } from "./pipeline/pretrain/step_graph.ts";
export { type Metrics, Progress, type RunPlan, type StepReport } from "./pipeline/run/progress.ts";

// Weights: any file in, any other out.
export { openWeights, type WeightsFile } from "./pipeline/weights/weights_file.ts";
export { convert, type Format } from "./pipeline/convert.ts";
export {
  type Checkpoint,
  latestCheckpoint,
  loadCheckpoint,
  type RunMeta,
  type Task,
} from "./pipeline/run/checkpoint_file.ts";
export { PRETRAIN, type PretrainMeta } from "./pipeline/pretrain/task.ts";

// Stages of a step: each takes tensors and gives tensors.
export { augment } from "./pipeline/pretrain/augment.ts";
export { forward, type ModelOptions, student, teacher } from "./pipeline/model/slotcon_network.ts";
export { cosineScores, type Grouped, slotGrouping } from "./pipeline/model/slot_grouping.ts";
export { aligned, groupingLoss, halfOfBatch, slotContrast } from "./pipeline/pretrain/loss.ts";
export {
  type Rates,
  slotConLoss,
  type SlotConObjective,
  slotConStep,
  type Step,
  type StepOptions,
  type Views,
} from "./pipeline/pretrain/step.ts";
export {
  type Objective,
  ObjectiveError,
  optimize,
  type OptimizeOptions,
  type TrainingStep,
} from "./pipeline/optim/optimize.ts";

// Networks: functions that ask for their parameters by name.
export { linear, type Network, normalized, parameter, within } from "./pipeline/model/network.ts";
export {
  type Declaration,
  DeclarationError,
  type Declared,
  type Role,
  StateBuilder,
} from "./pipeline/model/state_builder.ts";
export { encoder } from "./pipeline/model/resnet.ts";
export { predictor, projector } from "./pipeline/model/heads.ts";
export { lars } from "./pipeline/optim/lars.ts";
export type { BufferOf, Optimizer, OptimizerScalars, OptimizerUpdate } from "./pipeline/optim/optimizer.ts";
export { sgd } from "./pipeline/optim/sgd.ts";
export { lossScale } from "./pipeline/optim/loss_scale.ts";

// Tensors and ops.
export { constant, defineOp, input, reshape, stopGradient, type Tensor } from "./ops/graph/tensor.ts";
export { type Shape } from "./ops/graph/shape.ts";
export { kernel } from "./ops/kernels/wgsl.ts";
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
export { compile, evaluate, type Program } from "./ops/runtime/program.ts";
