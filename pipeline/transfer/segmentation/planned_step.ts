/** The step of fine-tuning for commands that plan, tune or time it. */
import { publishedClasses } from "../../../data/datasets/segmentation/published.ts";
import type { TaskStep } from "../../run/step_plan.ts";
import type { SegmentationConfig } from "./config.ts";
import { segmentationStep } from "./step.ts";
import { segmentationStepGraph } from "./step_graph.ts";

/** A data set of one's own has as many classes as `--classes` says, or else it is planned with as many as voc. */
const classesOf = ({ classes, dataset }: SegmentationConfig): number =>
  classes ?? publishedClasses(dataset === "masks" || dataset === "coco" ? "voc" : dataset).length;

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
