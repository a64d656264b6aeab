import { Effect } from "effect";
import { Command } from "effect/cli";
import { evaluateLinear } from "../../pipeline/eval/evaluate_linear.ts";
import { whichFlag } from "../flags/common_flags.ts";
import { classify } from "./classification.ts";
import { checkpointOperand, commonFlags, dataDirFlag, expectTraining, trainingFlags } from "./flags.ts";

/** The batch size of the training, in rows of features: so small that few images make many steps, too. */
const rowsPerStep = (pictures: number) => Math.min(256, Math.ceil(pictures / 20));

export const linear = Command.make(
  "linear",
  {
    checkpoint: checkpointOperand,
    dataDir: dataDirFlag("train/<class>/* and val/<class>/*, as ImageNet has them"),
    which: whichFlag,
    ...trainingFlags(100),
    ...commonFlags,
  },
  Effect.fn(function* ({ checkpoint, ...flags }) {
    yield* expectTraining(flags);
    const { epochs, lr, momentum, weightDecay, seed } = flags;
    yield* classify(checkpoint, flags, {
      name: "linear",
      title: "Linear classification",
      options: { epochs, lr, momentum, weightDecay, seed },
      evaluate: (shown) => {
        const batchSize = rowsPerStep(shown.folders.train.length);
        const training = { epochs, batchSize, rate: lr, momentum, weightDecay, seed };
        return evaluateLinear({ ...shown, training });
      },
      use: ({ train, val, classes }) =>
        `trained on ${train} pictures of ${classes} classes, scored on ${val} others`,
      facts: [[
        "training",
        `${epochs} epochs, learning rate ${lr}, momentum ${momentum}, weight decay ${weightDecay}`,
      ]],
      shares: "is the likeliest, or among the five likeliest",
      titles: ["a linear layer on", "top-1", "top-5", "training loss"],
      scores: ({ top1, top5, loss }) => [top1, top5, loss.toFixed(3)],
      neighbours: () => [],
    });
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Classify pictures by a linear layer on the frozen encoder's features (mean of the last feature map, standardised), " +
      "trained by SGD without augmentation. The features of the training pictures are held in memory. Beside the checkpoint " +
      "stand the same encoder untrained, and colour histograms.",
  ),
  Command.withShortDescription("Classify by a linear layer on frozen features: top-1, top-5"),
  Command.withExamples([{
    command:
      "slotcon evaluate linear resnet50.pth --data-dir datasets/flowers --output flowers.json --image-size 224",
    description: "A backbone of another project on pictures in folders",
  }]),
);
