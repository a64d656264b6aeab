import { Effect } from "effect";
import { Command } from "effect/cli";
import { openSegmentation } from "../data/datasets/segmentation/open_segmentation.ts";
import { SegmentationSetError } from "../data/datasets/segmentation/segmentation_set.ts";
import type { SegmentationConfig } from "../pipeline/transfer/segmentation/config.ts";
import { transferSegmentation } from "../pipeline/transfer/segmentation/transfer.ts";
import { segmentationConfigOf, segmentationFlags } from "./flags/config_flags.ts";
import { startTraining, trainingFlags } from "./training.ts";

const segmentation = Command.make(
  "segmentation",
  { ...segmentationFlags, ...trainingFlags },
  Effect.fn(function* (flags) {
    const config = yield* segmentationConfigOf(flags);
    yield* startTraining(config, flags, {
      reading: `Reading the labels in ${config.dataDir}`,
      read: readData(config),
      train: (data) => transferSegmentation(config, data),
    });
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Fine-tune an encoder, with a head that gives every pixel a class, on labelled pictures: the published recipes for VOC, " +
      "Cityscapes and ADE20K, or pictures and label maps of your own. The output folder gets what pretraining leaves there, " +
      "scores of the validation pictures, and the best checkpoint.",
  ),
  Command.withShortDescription("Fine-tune on semantic segmentation"),
  Command.withExamples([
    {
      command:
        "slotcon transfer segmentation --recipe voc --weights runs/coco/checkpoints/step_184800.safetensors --data-dir datasets/VOCdevkit --output-dir runs/voc",
      description: "The published recipe for PASCAL VOC",
    },
    {
      command:
        "slotcon transfer segmentation --dataset masks --data-dir my-labels --weights encoder.pth --iterations 2000 --output-dir runs/mine",
      description: "Pictures and label maps of your own",
    },
    {
      command: "slotcon transfer segmentation --config runs/voc/config.json --auto-resume",
      description: "Go on with a run that was stopped",
    },
  ]),
);

const readData = Effect.fnUntraced(function* (config: SegmentationConfig) {
  const train = yield* openSegmentation(config, "train");
  const val = config.validate
    ? yield* openSegmentation(config, "val").pipe(
      Effect.catchTag("SegmentationSetError", ({ subject, reason }) =>
        Effect.fail(
          new SegmentationSetError({ subject, reason: `${reason}; --no-validate trains without scores` }),
        )),
    )
    : null;
  return { train, val };
});

export const transfer = Command.make("transfer").pipe(
  Command.withDescription("Fine-tune a pretrained encoder for a task with labels."),
  Command.withShortDescription("Fine-tune a pretrained encoder for a task with labels"),
  Command.withSubcommands([segmentation]),
);
