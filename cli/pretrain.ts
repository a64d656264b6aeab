import { Effect } from "effect";
import { Command } from "effect/cli";
import { listImages } from "../data/datasets/image_list.ts";
import { pretrain as run } from "../pipeline/pretrain/pretrain.ts";
import { configFlags, configOf } from "./flags/config_flags.ts";
import { startTraining, trainingFlags } from "./training.ts";

export const pretrain = Command.make(
  "pretrain",
  { ...configFlags, ...trainingFlags },
  Effect.fn(function* (flags) {
    const config = yield* configOf(flags);
    yield* startTraining(config, flags, {
      reading: `Reading the list of pictures in ${config.dataDir}`,
      read: listImages(config),
      train: (images) => run(config, images),
    });
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Pretrain an encoder on a folder of pictures. The output folder gets log.txt, metrics.jsonl, config.json and " +
      "checkpoints; Ctrl-C saves one more before it ends.",
  ),
  Command.withShortDescription("Pretrain an encoder on a folder of pictures"),
  Command.withExamples([
    {
      command: "slotcon pretrain --preset coco-800 --data-dir datasets/coco --output-dir runs/coco",
      description: "The published run on COCO",
    },
    {
      command:
        "slotcon pretrain --dataset Folder --data-dir ~/photos --arch resnet18 --batch-size 32 --epochs 50",
      description: "A small run on photographs of your own",
    },
    {
      command: "slotcon pretrain --preset coco-800 --data-dir datasets/coco --output-dir runs/coco --ranks 8",
      description: "The same on eight GPUs of this machine; mpirun and srun start it on several",
    },
    {
      command: "slotcon pretrain --config runs/coco/config.json --auto-resume",
      description: "Go on with a run that was stopped",
    },
  ]),
);
