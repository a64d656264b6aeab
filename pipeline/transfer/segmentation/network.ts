/**
 * The segmentors of the published transfer: fully convolutional networks (Long et al. 2015) on a dilated ResNet
 * (docs/method.md, section 14). Names, their order and initial values are mmsegmentation's.
 */
import { addBias } from "../../../ops/add_bias.ts";
import { mul, relu } from "../../../ops/arithmetic.ts";
import { concat } from "../../../ops/concat.ts";
import { reshape, type Tensor } from "../../../ops/graph/tensor.ts";
import { matmul } from "../../../ops/matmul.ts";
import {
  convolution,
  type ConvolutionOptions,
  type Network,
  normalized,
  parameter,
  within,
} from "../../model/network.ts";
import { type EncoderOptions, type EncoderStages, encoderStages } from "../../model/resnet.ts";

/** Which segmentor, and how large. */
export interface SegmentorOptions extends EncoderOptions {
  /** Classes K. */
  readonly classes: number;
  /** Channels of the head's convolutions. */
  readonly headChannels: number;
  /** Dilation of the head's first two convolutions. */
  readonly headDilation: number;
  /** Whether a third convolution of the head sees the encoder's output beside that of the first two. */
  readonly concatInput: boolean;
  /** Weight of the auxiliary head's loss; 0: there is no such head. */
  readonly auxiliaryWeight: number;
  /** Channels of the auxiliary head's convolution. */
  readonly auxiliaryChannels: number;
}

/** Factors of the channels before the classifiers (dropout): 0 where one is dropped, else 1 / (1 − p). */
export interface KeptChannels {
  /** [N, headChannels] */
  readonly head: Tensor;
  /** [N, auxiliaryChannels]; null where there is no auxiliary head. */
  readonly auxiliary: Tensor | null;
}

/** What one head computes; h × w is the size of the map that it reads. */
export interface HeadOutput {
  /** Output of the 3×3 convolutions before the concatenation, [N, h, w, channels]. */
  readonly features: Tensor;
  /** Output of the convolution after the concatenation, of the same shape; null where there is none. */
  readonly fused: Tensor | null;
  /** Scores of the classes, [N, h, w, K]. */
  readonly logits: Tensor;
}

/** What a segmentor computes. */
export interface Segmented extends EncoderStages {
  /** The head on the last stage. */
  readonly head: HeadOutput;
  /** The auxiliary head on the third stage, for training alone; null where there is none. */
  readonly auxiliary: HeadOutput | null;
}

/**
 * Images [N, H, W, 3] through a segmentor, whose parts are named `backbone`, `decode_head` and, where its loss has a
 * weight, `auxiliary_head`. Without `kept` no channel is dropped.
 */
export const segmentor = (
  network: Network,
  images: Tensor,
  options: SegmentorOptions,
  kept: KeptChannels | null = null,
): Segmented => {
  const { classes, headChannels, headDilation, concatInput, auxiliaryWeight, auxiliaryChannels } = options;
  const backbone = encoderStages(within(network, "backbone"), images, options);
  const { stages: [, , third, last] } = backbone;
  const head = fcnHead(within(network, "decode_head"), last, kept?.head ?? null, {
    ...{ classes, channels: headChannels, dilation: headDilation, convolutions: 2, concatInput },
  });
  const auxiliary = auxiliaryWeight === 0
    ? null
    : fcnHead(within(network, "auxiliary_head"), third, kept?.auxiliary ?? null, {
      ...{ classes, channels: auxiliaryChannels, dilation: 1, convolutions: 1, concatInput: false },
    });
  return { ...backbone, head, auxiliary };
};

interface HeadShape {
  readonly classes: number;
  readonly channels: number;
  readonly dilation: number;
  readonly convolutions: number;
  readonly concatInput: boolean;
}

const fcnHead = (network: Network, x: Tensor, kept: Tensor | null, shape: HeadShape): HeadOutput => {
  const { classes, channels, dilation, convolutions, concatInput } = shape;
  const classify = classifier(network, channels, classes); // first, as in mmsegmentation's files
  let features = x;
  for (let i = 0; i < convolutions; i++) {
    features = unit(within(network, "convs"), String(i), features, channels, { dilation });
  }
  const fused = concatInput ? unit(network, "conv_cat", concat([x, features]), channels) : null;
  return { features, fused, logits: classify(thinned(fused ?? features, kept)) };
};

/** A 3×3 convolution with batch norm and ReLU. */
const unit = (network: Network, name: string, x: Tensor, channels: number, options?: ConvolutionOptions) => {
  const at = within(network, name);
  return relu(normalized(at, "bn", convolution(at, "conv", x, channels, 3, options)));
};

const thinned = (x: Tensor, kept: Tensor | null): Tensor => {
  if (kept === null) return x;
  const [N, , , C] = x.shape;
  return mul(x, reshape(kept, [N, 1, 1, C]));
};

/** Declares the 1×1 convolution with bias that scores classes; the result applies it to x [N, h, w, channels]. */
const classifier = (network: Network, channels: number, classes: number): (x: Tensor) => Tensor => {
  const at = within(network, "conv_seg");
  const init = { kind: "normal", deviation: 0.01 } as const;
  const weight = parameter(at, "weight", [classes, channels, 1, 1], "conv", init);
  const bias = parameter(at, "bias", [classes], "same", { kind: "constant", value: 0 });
  return (x) => addBias(matmul(x, reshape(weight, [channels, classes])), bias);
};
