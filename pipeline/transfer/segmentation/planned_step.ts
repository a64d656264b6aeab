/** The step of fine-tuning for commands that plan, tune or time it. */
import type { TaskStep } from "../../run/step_plan.ts";
import type { SegmentationConfig } from "./config.ts";
import { segmentationStep } from "./step.ts";
import { segmentationStepGraph } from "./step_graph.ts";

/** The classes of published data sets; those of one's own have as many as `--classes` says, or else as many as voc. */
const CLASSES = { voc: 21, cityscapes: 19, ade20k: 150, masks: 21, coco: 21 };

const classesOf = ({ classes, dataset }: SegmentationConfig) => classes ?? CLASSES[dataset];

/** A segmentor's step. */
export const SEGMENTATION_STEP: TaskStep<SegmentationConfig> = {
  build: (config, _, sync) => segmentationStepGraph(config, classesOf(config), segmentationStep, sync),
  besides: () => ({}),
  sample: ({ batchSize, cropSize, headChannels, auxiliaryChannels, auxiliaryWeight, dropout }) => ({
    pixels: new Uint32Array(batchSize * cropSize * cropSize),
    sizes: new Uint32Array(2 * batchSize).fill(cropSize),
    learningRate: new Float32Array(1),
    ...dropout === 0 ? {} : {
      keptHead: new Float32Array(batchSize * headChannels).fill(1),
      ...auxiliaryWeight === 0 ? {} : {
        keptAuxiliary: new Float32Array(batchSize * auxiliaryChannels).fill(1),
      },
    },
  }),
  words: (config) =>
    `${config.arch} at 1/${config.outputStride}, ${config.cropSize} px, ${classesOf(config)} classes`,
};
