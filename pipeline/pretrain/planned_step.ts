/** The step of pretraining for commands that plan, tune or time it. */
import { augmentationRowWords } from "../../ops/image/augmentation_row.ts";
import type { TaskStep } from "../run/step_plan.ts";
import { packingFor } from "./augment.ts";
import type { Config } from "./config.ts";
import { slotPictureBytes } from "./slot_pictures.ts";
import { stepGraph } from "./step_graph.ts";

/** SlotCon's step. */
export const PRETRAIN_STEP: TaskStep<Config> = {
  build: (config, traits, sync) => stepGraph(config, traits, undefined, sync),
  besides: (config, traits) => ({ "slot maps": slotPictureBytes(config, traits) }),
  sample: ({ imageSize, batchSize }, { maxBinding }) => {
    const packing = packingFor(imageSize, batchSize, maxBinding);
    return {
      pixels: new Uint32Array(packing.capacity / 4),
      views: new Uint32Array(2 * batchSize * augmentationRowWords(packing)),
      coords: Float32Array.from({ length: 8 * batchSize }, (_, i) => i % 4 < 2 ? 0 : 1),
      flips: new Float32Array(2 * batchSize),
      learningRate: new Float32Array(1),
      teacherMomentum: Float32Array.of(1),
    };
  },
  words: ({ arch, imageSize, numPrototypes }) => `${arch}, ${imageSize} px, ${numPrototypes} prototypes`,
};
