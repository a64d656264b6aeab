/**
 * ResNet encoders (He et al. 2015) up to the last stage's feature map. Names and initial values are those of
 * docs/method.md, section 1: torchvision's names, so that other tools can exchange weights with this one.
 */
import { add, relu } from "../../ops/arithmetic.ts";
import { averagePool } from "../../ops/average_pool.ts";
import type { Tensor } from "../../ops/graph/tensor.ts";
import type { PixelStatistics } from "../../ops/image/normalize_pixels.ts";
import { maxPool } from "../../ops/max_pool.ts";
import { convolution, type Network, normalized, within } from "./network.ts";

/** Mean and standard deviation of ImageNet's pixels, from 0 to 1, by which all published encoders normalise. */
export const IMAGENET: PixelStatistics = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/** A ResNet: a row of `ARCHITECTURES`. */
export interface Architecture {
  /** Residual blocks of each stage. */
  readonly blocks: readonly [number, number, number, number];
  /** Blocks of three convolutions, 1×1, 3×3 and 1×1, instead of two of 3×3. */
  readonly bottleneck: boolean;
  /** Three 3×3 convolutions as stem, average pooling in shortcuts ("ResNet-D", He et al. 2018). */
  readonly deep?: boolean;
  /** Multiplies the width of all stages behind the stem. */
  readonly widen?: number;
  /** Groups of the 3×3 convolutions (ResNeXt, Xie et al. 2017). */
  readonly groups?: number;
  /** Channels of a group in the first stage. */
  readonly groupWidth?: number;
  /** Input pixels per pixel of the feature map; 32 if not given. */
  readonly outputStride?: OutputStride;
}

/** Input pixels per pixel of the feature map. */
export type OutputStride = 8 | 16 | 32;

const basic = (...blocks: [number, number, number, number]): Architecture => ({ blocks, bottleneck: false });
const bottleneck = (...blocks: [number, number, number, number]): Architecture => ({
  blocks,
  bottleneck: true,
});

/** The encoders by name. The casts spare readers of the library's types the inference (JSR: no slow types). */
export const ARCHITECTURES = {
  resnet18: basic(2, 2, 2, 2) as Architecture,
  resnet34: basic(3, 4, 6, 3) as Architecture,
  resnet50: bottleneck(3, 4, 6, 3) as Architecture,
  resnet101: bottleneck(3, 4, 23, 3) as Architecture,
  resnet152: bottleneck(3, 8, 36, 3) as Architecture,
  resnet18_d: { ...basic(2, 2, 2, 2), deep: true } as Architecture,
  resnet34_d: { ...basic(3, 4, 6, 3), deep: true } as Architecture,
  resnet50_d: { ...bottleneck(3, 4, 6, 3), deep: true } as Architecture,
  resnet101_d: { ...bottleneck(3, 4, 23, 3), deep: true } as Architecture,
  resnet152_d: { ...bottleneck(3, 8, 36, 3), deep: true } as Architecture,
  resnet50_w2x: { ...bottleneck(3, 4, 6, 3), widen: 2 } as Architecture,
  resnet50_16s: { ...bottleneck(3, 4, 6, 3), outputStride: 16 } as Architecture,
  resnext101_32x8d: { ...bottleneck(3, 4, 23, 3), groups: 32, groupWidth: 8 } as Architecture,
  resnext152_32x8d: { ...bottleneck(3, 8, 36, 3), groups: 32, groupWidth: 8 } as Architecture,
};

/** The name of an encoder. */
export type ArchitectureName = keyof typeof ARCHITECTURES;

/** Which encoder, and how large. */
export interface EncoderOptions {
  /** The encoder by its name. */
  readonly arch: ArchitectureName;
  /** Channels behind the stem. */
  readonly width: number;
  /** Input pixels per pixel of the feature map; the architecture's own if not given. */
  readonly outputStride?: OutputStride | null;
  /** Dilation of each stage; if not given, 1 up to the output stride, and twice as much in each stage after it. */
  readonly dilations?: readonly number[];
}

/** What an encoder computes on the way. */
export interface EncoderStages {
  /** Output of the stem, after its pooling, [N, H / 4, W / 4, width]. */
  readonly stem: Tensor;
  /** Outputs of the four stages, [N, H / stride, W / stride, C], each with a stride and channels of its own. */
  readonly stages: readonly [Tensor, Tensor, Tensor, Tensor];
}

/** Images [N, H, W, 3] to features [N, H / stride, W / stride, C]; sizes are rounded up at each halving. */
export const encoder = (network: Network, images: Tensor, options: EncoderOptions): Tensor =>
  encoderStages(network, images, options).stages[3];

/**
 * The same with the outputs of all stages. Once the output stride is reached, stages dilate instead of striding (Chen et
 * al. 2017); the first block of such a stage has half of its dilation.
 */
export const encoderStages = (network: Network, images: Tensor, options: EncoderOptions): EncoderStages => {
  const arch: Architecture = ARCHITECTURES[options.arch];
  const { width } = options;
  const first = maxPool(stem(network, images, width, arch.deep ?? false), { size: 3, stride: 2, pad: 1 });
  let x = first;
  let stride = 4;
  let dilation = 1;
  const stages = arch.blocks.map((count, stage) => {
    const wanted = stage === 0 ? 1 : 2;
    const limit = options.outputStride ?? arch.outputStride ?? 32;
    const stepping = stride * wanted <= limit ? wanted : 1;
    stride *= stepping;
    if (stepping < wanted) dilation *= wanted;
    const full = options.dilations?.[stage] ?? dilation;
    const planes = width * 2 ** stage;
    for (let block = 0; block < count; block++) {
      const at = within(within(network, `layer${stage + 1}`), String(block));
      x = residualBlock(at, x, arch, {
        planes,
        stride: block === 0 ? stepping : 1,
        dilation: block === 0 ? Math.max(1, Math.floor(full / 2)) : full,
      });
    }
    return x;
  });
  return { stem: first, stages: stages as unknown as EncoderStages["stages"] };
};

const stem = (network: Network, x: Tensor, width: number, deep: boolean): Tensor => {
  if (!deep) {
    return relu(normalized(network, "bn1", convolution(network, "conv1", x, width, 7, { stride: 2 })));
  }
  // conv1 is a sequence: 0 conv, 1 norm, 2 ReLU, 3 conv, 4 norm, 5 ReLU, 6 conv.
  const at = within(network, "conv1");
  x = relu(normalized(at, "1", convolution(at, "0", x, width / 2, 3, { stride: 2 })));
  x = relu(normalized(at, "4", convolution(at, "3", x, width / 2, 3)));
  return relu(normalized(network, "bn1", convolution(at, "6", x, width, 3)));
};

interface BlockShape {
  readonly planes: number;
  readonly stride: number;
  readonly dilation: number;
}

const residualBlock = (at: Network, x: Tensor, arch: Architecture, shape: BlockShape): Tensor => {
  const { planes, stride, dilation } = shape;
  const groups = arch.groups ?? 1;
  const spatial = { stride, dilation };
  let y: Tensor;
  if (arch.bottleneck) {
    const inner = arch.groupWidth === undefined
      ? planes * (arch.widen ?? 1)
      : Math.floor(planes * arch.groupWidth / 64) * groups;
    y = relu(normalized(at, "bn1", convolution(at, "conv1", x, inner, 1)));
    y = relu(normalized(at, "bn2", convolution(at, "conv2", y, inner, 3, { ...spatial, groups })));
    y = normalized(at, "bn3", convolution(at, "conv3", y, planes * 4, 1), { scale: 0 });
  } else {
    y = relu(normalized(at, "bn1", convolution(at, "conv1", x, planes, 3, spatial)));
    y = normalized(at, "bn2", convolution(at, "conv2", y, planes, 3, { dilation }), { scale: 0 });
  }
  return relu(add(y, shortcut(at, x, y.shape[3], stride, arch.deep ?? false)));
};

const shortcut = (at: Network, x: Tensor, channels: number, stride: number, deep: boolean): Tensor => {
  if (x.shape[3] === channels && stride === 1) return x;
  const down = within(at, "downsample");
  // The pooled variant is a sequence of one more entry: 0 pool, 1 conv, 2 norm.
  if (!deep) return normalized(down, "1", convolution(down, "0", x, channels, 1, { stride }));
  const pooled = stride === 1 ? x : averagePool(x, { size: stride, stride });
  return normalized(down, "2", convolution(down, "1", pooled, channels, 1));
};
