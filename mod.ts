/**
 * SlotCon, self-supervised pretraining by slots (docs/method.md), as a library: runs, and all that a pipeline of your own
 * is made from. Each name is documented where it is defined.
 *
 * A run is `pretrain(config, images, step)`: the step is a pure function from views and rates to the next state and
 * metrics, composed from the stages and ops below; leave it out for SlotCon itself. Fine-tuning on semantic segmentation is
 * `transferSegmentation(config, data, step)`, made likewise.
 *
 * The parts have entries of their own, whose names are all here, too: `./ops`, `./model` and `./weights`.
 *
 * @module
 */

export * from "./ops/mod.ts";
export * from "./pipeline/model.ts";
export * from "./pipeline/weights.ts";

// A run: configuration, images, device, ranks.
export {
  Config,
  configure,
  METHOD_OPTIONS,
  type OptionName,
  OPTIONS,
  type PresetName,
  PRESETS,
} from "./pipeline/pretrain/config.ts";
export {
  ConfigError,
  type ConfigOf,
  type Option,
  RUN_OPTIONS,
  type Settings,
} from "./pipeline/run/options.ts";
export { type Dataset, ImageListError, listImages } from "./data/datasets/image_list.ts";
export { layerTuned } from "./pipeline/run/tuned_kernels.ts";
export { DeviceError, rankGpu } from "./pipeline/ranks/device.ts";
export { type RankOptions, ranks } from "./pipeline/ranks/mpi.ts";
export { MpiMissingError } from "./pipeline/ranks/mpi_library.ts";
export { pretrain, type PretrainError } from "./pipeline/pretrain/pretrain.ts";
export { type StepBuilder, type StepConfig } from "./pipeline/pretrain/step_graph.ts";

// What a run reports.
export {
  type Metrics,
  Progress,
  type ProgressSink,
  type RunPlan,
  type StepReport,
} from "./pipeline/run/progress.ts";
export { type Phase, type Seconds } from "./pipeline/run/phase_timer.ts";

// How a run fails, besides the errors of the parts.
export { BatchTooLargeError } from "./pipeline/pretrain/decode.ts";
export { TooManyBadImagesError } from "./pipeline/run/bad_images.ts";
export {
  NonFiniteGradientsError,
  NonFiniteLossError,
  NonFiniteStateError,
} from "./pipeline/run/divergence.ts";
export { OtherRankError, RanksDifferError } from "./pipeline/run/replicas.ts";
export { RunFolderError } from "./pipeline/run/run_folder.ts";
export { type Ending, FolderInUseError, type RunStatus, runStatus } from "./pipeline/run/run_status.ts";
export { type TrainError, UnevenBatchError } from "./pipeline/run/train.ts";
export { WorkerError } from "./pipeline/run/worker.ts";

// The stages of a step: each takes tensors and gives tensors.
export { augment } from "./pipeline/pretrain/augment.ts";
export {
  rateInputs,
  type Rates,
  type Side,
  type Step,
  type StepOptions,
  type Views,
} from "./pipeline/pretrain/step.ts";
export { slotConLoss, type SlotConObjective, slotConStep } from "./pipeline/pretrain/step.ts";

// Transfer to semantic segmentation: configuration, data, the run.
export {
  configureSegmentation,
  type RecipeName,
  RECIPES,
  SEGMENTATION_FIELDS,
  SEGMENTATION_TABLE,
  type SegmentationConfig,
} from "./pipeline/transfer/segmentation/config.ts";
export { openSegmentation } from "./data/datasets/segmentation/open_segmentation.ts";
export {
  type SegmentationClass,
  type SegmentationDataset,
  type SegmentationSample,
  type SegmentationSet,
  SegmentationSetError,
  type SegmentationSetOptions,
} from "./data/datasets/segmentation/segmentation_set.ts";
export {
  type SegmentationData,
  type SegmentationError,
  transferSegmentation,
} from "./pipeline/transfer/segmentation/transfer.ts";

// Labels: where they come from, and how they fail.
export {
  IGNORED,
  type LabelSource,
  type LabelValues,
  storedNumbers,
} from "./data/datasets/segmentation/label_source.ts";
export {
  type CocoMapSource,
  type CocoMaskSource,
  type CocoNamedSource,
  type CocoPanopticSource,
  type CocoSource,
  type LabelKind,
  type Split,
} from "./data/datasets/coco_labels.ts";
export { LabelError } from "./data/datasets/coco_annotations.ts";
export { type Size } from "./data/images/resize.ts";

// The stages of its step.
export {
  type SegmentationBatch,
  segmentationLoss,
  type SegmentationObjective,
  type SegmentationStep,
  segmentationStep,
  type SegmentationStepOptions,
} from "./pipeline/transfer/segmentation/step.ts";
export {
  type SegmentationStepBuilder,
  type SegmentationStepConfig,
} from "./pipeline/transfer/segmentation/step_graph.ts";
export {
  type HeadOutput,
  type KeptChannels,
  type Segmented,
  segmentor,
  type SegmentorOptions,
} from "./pipeline/transfer/segmentation/network.ts";

// A trained segmentor: from its file, on images, scored.
export { type SavedSegmentor, segmentorOf } from "./pipeline/transfer/segmentation/weights.ts";
export { savedSegmenter, type Segment, type ShownImage } from "./pipeline/transfer/segmentation/segment.ts";
export { type RunError } from "./pipeline/inference/descriptors.ts";
export { type PixelSize } from "./ops/window_argmax.ts";
export {
  type ImageSource,
  type UnreadableImage,
  type WholeImage,
  wholeImages,
} from "./pipeline/transfer/segmentation/whole_images.ts";
export { type ResizedImage } from "./pipeline/transfer/segmentation/whole_image_worker.ts";
export { type PredictedImage } from "./pipeline/transfer/segmentation/prediction_pictures.ts";
export {
  evaluateSegmentor,
  NothingScoredError,
  type ScoredImage,
  type SegmentorEvaluation,
  type SegmentorEvaluationError,
  type ShownPrediction,
} from "./pipeline/transfer/segmentation/evaluate.ts";
export {
  addToConfusion,
  type ClassScore,
  type Confusion,
  noConfusion,
  type SegmentationScores,
  segmentationScores,
} from "./pipeline/transfer/segmentation/scores.ts";
