/**
 * Files of weights: reads and inspects those of this project, of the published code, of PyTorch, detectron2 and
 * safetensors, and writes them for other tools.
 *
 * ```ts
 * import { Effect } from "effect";
 * import { convert, openWeights } from "@slotcon/slotcon/weights";
 *
 * const onnx = Effect.gen(function* () {
 *   const weights = yield* openWeights("output/checkpoints/step_001000.safetensors");
 *   return (yield* convert(weights, { to: "onnx", which: "teacher" })).pieces; // the bytes, piece by piece
 * }).pipe(Effect.scoped);
 * ```
 *
 * @module
 */

// Any file in.
export {
  type Content,
  type EncoderFacts,
  encoderFacts,
  openWeights,
  type SavedClasses,
  type WeightsFile,
} from "./weights/weights_file.ts";
export type { FileArray, FileDtype, FileTensor, StoredTensor } from "../data/formats/file_tensor.ts";
export { widened } from "../data/formats/file_tensor.ts";
export type { Published } from "./weights/published_file.ts";
export type { TorchValue } from "../data/formats/torch/stored_tensor.ts";
export type { PickleValue } from "../data/formats/pickle/values.ts";
export { FormatError } from "../data/files/format_error.ts";

// What is in it.
export { architectureOf, encoderOf, type Which } from "./weights/encoder.ts";
export type { ArchitectureName, EncoderOptions, OutputStride } from "./model/resnet.ts";
export type { ModelOptions } from "./model/slotcon_network.ts";
export type { OptimizerName } from "./optim/optimizers.ts";
export { type Teacher, teacherOf, type TeacherOptions } from "./weights/teacher.ts";
export { type GroupHealth, inspect, type Inspection, type PrototypeHealth } from "./weights/inspect.ts";

// Any other out.
export type { RecipeName } from "./transfer/segmentation/config.ts";
export { convert, type Converted, ConvertError, type Format, FORMATS } from "./convert.ts";
export { ExportError } from "./weights/encoder_onnx.ts";

// Checkpoints: the files that runs go on from.
export { type Checkpoint, CheckpointError, type OpenCheckpoint } from "./run/checkpoint_file.ts";
export { latestCheckpoint, loadCheckpoint, openCheckpoint, saveCheckpoint } from "./run/checkpoint_file.ts";
export type { RunMeta, Task } from "./run/checkpoint_file.ts";
export type { StateTensor, StateValues } from "./run/state_layout.ts";
export { PRETRAIN, type PretrainMeta, type RecordedConfig } from "./pretrain/task.ts";
