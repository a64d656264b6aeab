/** The configurations of recorded segmentors: their steps, their inference, and their learning rates. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import { type ArchitectureName, ARCHITECTURES } from "../model/resnet.ts";
import type { RatePolicy } from "../optim/rate_policy.ts";
import type { SegmentorOptions } from "../transfer/segmentation/network.ts";

const Count = Schema.Int.check(Schema.isGreaterThan(0));
const Size = Schema.Tuple([Count, Count]); // height and width
const OfStages = Schema.Tuple([Count, Count, Count, Count]);
const Statistics = Schema.Tuple([Schema.Finite, Schema.Finite, Schema.Finite]);

/** What a recording says of its segmentor; the optional numbers are those of its kind if not given. */
const NETWORK = {
  kind: Schema.String,
  width: Count,
  head: Count,
  aux: Schema.optionalKey(Count),
  classes: Count,
  depth: Schema.optionalKey(Count),
  strides: Schema.optionalKey(OfStages),
  dilations: Schema.optionalKey(OfStages),
  contract_dilation: Schema.optionalKey(Schema.Boolean),
  head_dilation: Schema.optionalKey(Count),
  concat_input: Schema.optionalKey(Schema.Boolean),
  align_corners: Schema.Boolean,
};

/** How a recorded learning rate falls. */
export const Policy = Schema.Union([
  Schema.Struct({
    policy: Schema.Literal("step"),
    step: Schema.Array(Schema.Finite),
    gamma: Schema.Finite,
  }),
  Schema.Struct({ policy: Schema.Literal("poly"), power: Schema.Finite, min_lr: Schema.Finite }),
]);

const StepConfig = Schema.Struct({
  ...NETWORK,
  crop: Size,
  batch: Count,
  dropout: Schema.Finite,
  aux_weight: Schema.Finite,
  ignore_index: Schema.Int,
  lr: Schema.Finite,
  momentum: Schema.Finite,
  weight_decay: Schema.Finite,
  policy: Policy,
  max_iters: Count,
  first_iter: Schema.Int,
});

const InferenceConfig = Schema.Struct({
  ...NETWORK,
  original_size: Size,
  size: Size,
  crop_size: Size,
  stride: Size,
  mean: Statistics,
  std: Statistics,
});

/** The configuration of recorded steps. */
export type SegmentationStepConfig = typeof StepConfig.Type;

/** The configuration of recorded inference. */
export type SegmentationInferenceConfig = typeof InferenceConfig.Type;

const decodeSteps = Schema.decodeUnknownEffect(Schema.Struct({
  config: Schema.fromJsonString(StepConfig),
  steps: Schema.fromJsonString(Schema.Array(Schema.Struct({ iteration: Schema.Int, lr: Schema.Finite }))),
}));
const decodeInference = Schema.decodeUnknownEffect(
  Schema.Struct({ config: Schema.fromJsonString(InferenceConfig) }),
);

type Metadata = Readonly<Record<string, string>>;

/** The configuration of recorded steps, and of each the iteration and its rate. Fails with a `FormatError` for others. */
export const readStepConfig = (
  metadata: Metadata,
  file: string,
): Effect.Effect<
  { readonly config: SegmentationStepConfig; readonly steps: readonly { iteration: number; lr: number }[] },
  FormatError
> => Effect.mapError(decodeSteps(metadata), refused(file, "steps of a segmentor"));

/** The configuration of recorded inference. Fails with a `FormatError` for others. */
export const readInferenceConfig = (
  metadata: Metadata,
  file: string,
): Effect.Effect<SegmentationInferenceConfig, FormatError> =>
  decodeInference(metadata).pipe(
    Effect.mapBoth({
      onSuccess: ({ config }) => config,
      onFailure: refused(file, "a segmentor's inference"),
    }),
  );

const refused = (file: string, what: string) => ({ message }: { readonly message: string }) =>
  new FormatError({
    subject: file,
    reason: `its metadata is not that of recorded ${what}: ${message.replace(/\s*\n\s*/g, " ")}`,
  });

/** The policy of recorded rates. */
export const recordedPolicy = (
  { policy, lr, max_iters }: Pick<SegmentationStepConfig, "policy" | "lr" | "max_iters">,
): RatePolicy =>
  policy.policy === "step"
    ? { schedule: "step", baseLr: lr, milestones: policy.step, decay: policy.gamma }
    : { schedule: "poly", baseLr: lr, minLr: policy.min_lr, power: policy.power, iterations: max_iters };

type Network = Pick<SegmentationStepConfig, keyof typeof NETWORK>;

/** The published networks, by their name in recordings. */
const KINDS: Readonly<
  Record<string, Pick<Network, "strides" | "dilations" | "head_dilation" | "concat_input">>
> = {
  d16: { strides: [1, 2, 2, 1], dilations: [1, 1, 1, 2], head_dilation: 6, concat_input: false },
  d8: { strides: [1, 2, 1, 1], dilations: [1, 1, 2, 4], head_dilation: 1, concat_input: true },
};

/** The strides of the stages for each output stride. */
const STRIDES = { 32: [1, 2, 2, 2], 16: [1, 2, 2, 1], 8: [1, 2, 1, 1] } as const;

/**
 * The segmentor of a recording; `auxiliaryWeight` is the weight of its auxiliary head's loss. Fails with a `FormatError`
 * where there is no such segmentor.
 */
export const recordedSegmentor = (
  config: Network,
  auxiliaryWeight: number,
  file: string,
): Effect.Effect<SegmentorOptions, FormatError> => {
  const refuse = (reason: string) => Effect.fail(new FormatError({ subject: file, reason }));
  const { strides, dilations, head_dilation, concat_input, depth = 50, contract_dilation = true } = {
    ...KINDS[config.kind],
    ...config,
  };
  if (!strides || !dilations || head_dilation === undefined || concat_input === undefined) {
    return refuse(
      `its config has a network of kind "${config.kind}" without strides; known kinds are d16 and d8`,
    );
  }
  const arch = `resnet${depth}`;
  if (!Object.hasOwn(ARCHITECTURES, arch)) return refuse(`its config has a ResNet of depth ${depth}`);
  const outputStride = ([8, 16, 32] as const).find((stride) => STRIDES[stride].join() === strides.join());
  if (outputStride === undefined) {
    return refuse(`its config has strides ${strides.join(", ")}, which no encoder has`);
  }
  if (!contract_dilation && dilations.some((dilation) => dilation > 1)) {
    return refuse("its config has dilations that are not contracted, which no encoder has");
  }
  if (auxiliaryWeight > 0 && config.aux === undefined) {
    return refuse(`its config weighs an auxiliary head by ${auxiliaryWeight}, but has no "aux" channels`);
  }
  return Effect.succeed({
    arch: arch as ArchitectureName,
    width: config.width,
    outputStride,
    dilations,
    classes: config.classes,
    headChannels: config.head,
    headDilation: head_dilation,
    concatInput: concat_input,
    auxiliaryWeight,
    auxiliaryChannels: config.aux ?? 1,
  });
};
