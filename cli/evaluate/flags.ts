/** The flags and operands of the evaluations, and checks of their values. */
import { Option } from "effect";
import { Argument, type Command, Flag } from "effect/cli";
import { LABEL_KINDS } from "../../data/datasets/coco_labels.ts";
import { deviceFlag, maxBadImagesFlag } from "../flags/common_flags.ts";
import { expectWithin } from "../flags/usage_error.ts";

export const checkpointOperand = Argument.String("checkpoint").pipe(
  Argument.withDescription("file of weights, of any format that slotcon inspect reads"),
);

export const commonFlags = {
  output: Flag.String("output").pipe(
    Flag.withMetavar("FILE.json"),
    Flag.withDescription(
      "where the numbers go, a page with pictures beside it; by default the folder evaluations beside the checkpoint",
    ),
    Flag.optional,
  ),
  imageSize: Flag.Int("image-size").pipe(
    Flag.withDescription("side of the square that is shown to the network; by default that of its training"),
    Flag.optional,
  ),
  pictures: Flag.Int("pictures").pipe(
    Flag.withDescription("at most so many of each split, evenly from the whole list; by default all"),
    Flag.optional,
  ),
  batchSize: Flag.Int("batch-size").pipe(
    Flag.withDescription("pictures at a time"),
    Flag.withDefault(16),
  ),
  maxBadImages: maxBadImagesFlag,
  seed: Flag.Int("seed").pipe(
    Flag.withDescription(
      "seed of all that is random: initial weights that are compared, orders, cluster centres",
    ),
    Flag.withDefault(0),
  ),
  device: deviceFlag,
};

export const outputStrideFlag = Flag.ChoiceWithValue(
  "output-stride",
  [["8", 8], ["16", 16], ["32", 32]] as const,
)
  .pipe(
    Flag.withDescription(
      "pixels per cell of the feature map: 8 or 16 dilates the last stages; by default as trained",
    ),
    Flag.optional,
  );

export const dataDirFlag = (layout: string) =>
  Flag.String("data-dir").pipe(Flag.withMetavar("PATH"), Flag.withDescription(`folder with ${layout}`));

export const labelFlags = {
  labels: Flag.Literals("labels", LABEL_KINDS).pipe(
    Flag.withDescription("which annotations say what is where; by default the first of these that is there"),
    Flag.optional,
  ),
  supercategories: Flag.Boolean("supercategories").pipe(
    Flag.withDescription("take COCO's supercategories as classes (27 of things and stuff)"),
    Flag.withDefault(false),
  ),
};

/** The training of a linear layer. */
export const trainingFlags = (epochs: number) => ({
  epochs: Flag.Int("epochs").pipe(
    Flag.withDescription("passes over the training pictures"),
    Flag.withDefault(epochs),
  ),
  lr: Flag.Finite("lr").pipe(
    Flag.withDescription(
      "learning rate at the start, for features whose squared norm is 1 on average; falls to 0 along half a cosine",
    ),
    Flag.withDefault(2),
  ),
  momentum: Flag.Finite("momentum").pipe(Flag.withDescription("of SGD"), Flag.withDefault(0.9)),
  weightDecay: Flag.Finite("weight-decay").pipe(Flag.withDescription("of SGD"), Flag.withDefault(0)),
});

export type CommonValues = Command.Command.Config.Infer<typeof commonFlags>;
type TrainingValues = Command.Command.Config.Infer<ReturnType<typeof trainingFlags>>;

export const expectCommon = ({ imageSize, pictures, batchSize, maxBadImages, seed }: CommonValues) =>
  expectWithin({
    "image-size": [Option.getOrNull(imageSize), 32, 4096],
    pictures: [Option.getOrNull(pictures), 1],
    "batch-size": [batchSize, 1],
    "max-bad-images": [maxBadImages, 0, 1],
    seed: [seed, 0],
  });

export const expectTraining = ({ epochs, lr, momentum, weightDecay }: TrainingValues) =>
  expectWithin({
    epochs: [epochs, 1],
    lr: [lr, 0],
    momentum: [momentum, 0],
    "weight-decay": [weightDecay, 0],
  });
