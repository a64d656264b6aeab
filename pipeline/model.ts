/**
 * Networks, their state, losses and optimisers: plain functions that build graphs of the tensors of `./ops`.
 *
 * A network asks for its parameters by name, which declares them; `optimize` adds the gradients of a loss and the next
 * values of all that is declared trained:
 *
 * ```ts
 * import { input, mean, mul, sub } from "@slotcon/slotcon/ops";
 * import { linear, optimize, StateBuilder, student, within } from "@slotcon/slotcon/model";
 *
 * const state = new StateBuilder();
 * const network = within(student(state, null), "head");
 * const error = sub(linear(network, "fc", input("x", [8, 3]), 1), input("y", [8, 1]));
 * const objective = { state, loss: mean(mul(error, error)), metrics: {} };
 * const step = optimize(objective, input("rate", []), { optimizer: "sgd", weightDecay: 0, momentum: 0.9 });
 * ```
 *
 * Parameters are named, shaped and stored in files as in PyTorch.
 *
 * @module
 */

// State: the tensors that last from step to step.
export { type Declaration, DeclarationError, type Declared, type Init } from "./model/state_builder.ts";
export { type Role, StateBuilder, type Storage } from "./model/state_builder.ts";
export { initialState } from "./run/initial_state.ts";
export { checkpointShapes, type StateTensor, type StateValues } from "./run/state_layout.ts";
export { download, snapshot, upload } from "./run/state.ts";

// Networks: functions that ask for their parameters by name.
export { convolution, linear, type Network, normalized, parameter, within } from "./model/network.ts";
export type { ConvolutionOptions, Training } from "./model/network.ts";
export { type Architecture, type ArchitectureName, ARCHITECTURES, encoder } from "./model/resnet.ts";
export { type EncoderOptions, type EncoderStages, encoderStages } from "./model/resnet.ts";
export { IMAGENET, type OutputStride } from "./model/resnet.ts";
export { type HeadSizes, predictor, projector } from "./model/heads.ts";
export { forward, type ModelOptions, type Projected, student, teacher } from "./model/slotcon_network.ts";

// Slots, and the losses on them.
export { cosineScores, type Grouped, slotGrouping } from "./model/slot_grouping.ts";
export { aligned, type Contrast, type DistillationOptions } from "./pretrain/loss.ts";
export { groupingLoss, halfOfBatch, slotContrast } from "./pretrain/loss.ts";

// Optimisers, and from a loss to a step.
export { type Objective, ObjectiveError, optimize } from "./optim/optimize.ts";
export type { OptimizeOptions, TrainingStep } from "./optim/optimize.ts";
export type { BufferOf, Optimizer, OptimizerScalars, OptimizerUpdate } from "./optim/optimizer.ts";
export { type OptimizerName, optimizerNames } from "./optim/optimizers.ts";
export { lars } from "./optim/lars.ts";
export { sgd } from "./optim/sgd.ts";
export { type LossScale, lossScale } from "./optim/loss_scale.ts";
export { learningRate, planSchedule, type Schedule, type ScheduleOptions } from "./optim/schedule.ts";
export { teacherCounter, teacherMomentum } from "./optim/schedule.ts";

// What ranks exchange within a step.
export { acrossRanks, singleProcess, type Sync } from "./ranks/sync.ts";

// What these use of `./ops`.
export type { Shape } from "../ops/graph/shape.ts";
export type { Tensor } from "../ops/graph/tensor.ts";
export type { Moments } from "../ops/batch_norm.ts";
export type { PixelStatistics } from "../ops/image/normalize_pixels.ts";
export type { DeviceState } from "../ops/runtime/buffers.ts";
export { Gpu, GpuError } from "../ops/runtime/gpu.ts";
