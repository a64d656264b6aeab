/** What the evaluations have in common: their flags, the file in question and what it is compared with. */
import { Effect, Option, Schema } from "effect";
import { Argument, Flag } from "effect/cli";
import { LABEL_KINDS } from "../../data/datasets/coco_labels.ts";

export class EvaluationFlagError extends Schema.TaggedError<EvaluationFlagError>()("EvaluationFlagError", {
  flag: Schema.String,
  expected: Schema.String,
  found: Schema.String,
}) {
  override get message() {
    return `${this.flag}: expected ${this.expected}, found ${this.found}`;
  }
}

export const checkpoint = Argument.String("checkpoint").pipe(
  Argument.withDescription("file of weights, of any format that slotcon inspect reads"),
);

export const common = {
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
  seed: Flag.Int("seed").pipe(
    Flag.withDescription(
      "seed of all that is random: initial weights that are compared, orders, cluster centres",
    ),
    Flag.withDefault(0),
  ),
  device: Flag.Literals("device", ["native", "dawn"]).pipe(
    Flag.withDescription("WebGPU of Deno (native) or of the npm package webgpu (dawn)"),
    Flag.withDefault("native" as const),
  ),
};

export const which = Flag.Literals("which", ["teacher", "student"]).pipe(
  Flag.withDescription("whose encoder, where the file has both"),
  Flag.withDefault("teacher" as const),
);

export const outputStride = Flag.ChoiceWithValue("output-stride", [["8", 8], ["16", 16], ["32", 32]] as const)
  .pipe(
    Flag.withDescription(
      "pixels per cell of the feature map: 8 or 16 dilates the last stages; by default as trained",
    ),
    Flag.optional,
  );

export const dataDir = (layout: string) =>
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

/** Training of a linear layer. */
export const training = (epochs: number) => ({
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

/** Fails unless each of these flags is at least as large as given. */
export const expectAtLeast = Effect.fnUntraced(
  function* (flags: Readonly<Record<string, readonly [value: number | null, least: number]>>) {
    for (const [flag, [value, least]] of Object.entries(flags)) {
      if (value === null || value >= least) continue;
      return yield* new EvaluationFlagError({
        flag: `--${flag}`,
        expected: `at least ${least}`,
        found: String(value),
      });
    }
  },
);

export const expectCommon = (
  { imageSize, pictures, batchSize, seed }: {
    readonly imageSize: Option.Option<number>;
    readonly pictures: Option.Option<number>;
    readonly batchSize: number;
    readonly seed: number;
  },
) =>
  expectAtLeast({
    "image-size": [Option.getOrNull(imageSize), 32],
    pictures: [Option.getOrNull(pictures), 1],
    "batch-size": [batchSize, 1],
    seed: [seed, 0],
  });

export const expectTraining = (
  { epochs, lr, momentum, weightDecay }: {
    readonly epochs: number;
    readonly lr: number;
    readonly momentum: number;
    readonly weightDecay: number;
  },
) =>
  expectAtLeast({
    epochs: [epochs, 1],
    lr: [lr, 0],
    momentum: [momentum, 0],
    "weight-decay": [weightDecay, 0],
  });
