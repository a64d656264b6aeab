/**
 * An encoder as an ONNX file, for other runtimes. The file is made from the graph that `encoder` builds, op by op, so
 * that there is one definition of the model: an op without a rule here is an error.
 *
 * Graphs here are channels-last and ONNX is channels-first. That changes no operator of these networks, only the order
 * of axes of the input and the output; weights are channels-first in files anyway.
 */
import { Data, Effect } from "effect";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { type OnnxAttribute, type OnnxModel, type OnnxNode, writeOnnx } from "../../data/formats/onnx.ts";
import type { AveragePool } from "../../ops/average_pool.ts";
import type { ByRunning } from "../../ops/batch_norm.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import { input, storageOf, type Tensor } from "../../ops/graph/tensor.ts";
import type { Convolution } from "../../ops/kernels/convolution.ts";
import type { MaxPool } from "../../ops/max_pool.ts";
import { encoder, type EncoderOptions, IMAGENET } from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { PROJECT_VERSION } from "../run/project_version.ts";
import { checkpointShapes } from "../run/state_layout.ts";

/** A network cannot be written as ONNX. */
export class ExportError extends Data.Error<{
  readonly reason: string;
  readonly network?: "encoder" | "segmentor"; // an encoder if not given
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ExportError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot export the ${this.network ?? "encoder"} as ONNX: ${this.reason}`;
  }
}

/** Side of the images for which the graph is built; the file is for images of any size. */
const SIDE = 224;

/**
 * The bytes of an ONNX file, in pieces to be written one after the other: "images" [batch, 3, height, width],
 * normalised RGB, to "features" [batch, C, height / stride, width / stride]. The same weights give the same bytes.
 *
 * `weights` are F32 under torchvision's names, without a prefix; tensors that the encoder does not have are left out.
 * Fails with an `ExportError` where one is missing or of another shape, where the encoder has an op without a rule
 * here, and beyond the 2 GiB of a protobuf file.
 */
export const encoderOnnx: (
  weights: ReadonlyMap<string, FileTensor>,
  options: EncoderOptions,
) => Effect.Effect<readonly Uint8Array<ArrayBuffer>[], ExportError> = Effect.fn("encoderOnnx")(function* (
  weights,
  options,
) {
  const state = new StateBuilder();
  const images = input("images", [1, SIDE, SIDE, 3]);
  const features = encoder(student(state, null), images, options);
  const [, rows, , C] = features.shape;
  const model: OnnxModel = {
    producer: { name: "slotcon", version: PROJECT_VERSION },
    metadata: {
      arch: options.arch,
      width: String(options.width),
      output_stride: String(SIDE / rows),
      image_mean: IMAGENET.mean.join(),
      image_std: IMAGENET.std.join(),
    },
    name: "encoder",
    input: {
      name: "images",
      shape: ["batch", 3, "height", "width"],
      about: "RGB from 0 to 1, minus image_mean, divided by image_std",
    },
    output: {
      name: "features",
      shape: ["batch", C, "feature_height", "feature_width"],
      about: "the last stage's feature map",
    },
    nodes: yield* onnxNodes(images, features),
    weights: yield* onnxWeights(checkpointShapes(state), weights),
  };
  return yield* Effect.try({
    try: () => writeOnnx(model),
    catch: (error) => new ExportError({ reason: (error as RangeError).message }),
  });
});

/**
 * The tensors of these names and shapes. Fails with an `ExportError` where one is missing, of another shape, or not of
 * type F32.
 */
export const onnxWeights: (
  shapes: Iterable<readonly [name: string, shape: readonly number[]]>,
  weights: ReadonlyMap<string, FileTensor>,
) => Effect.Effect<ReadonlyMap<string, FileTensor>, ExportError> = Effect.fnUntraced(
  function* (shapes, weights) {
    const used = new Map<string, FileTensor>();
    for (const [name, shape] of shapes) {
      if (name.endsWith(".num_batches_tracked")) continue; // matters to training only
      const tensor = weights.get(name);
      if (tensor?.dtype !== "F32" || !sameShape(tensor.shape, shape)) {
        const found = tensor === undefined ? "is missing" : `is ${tensor.dtype} [${tensor.shape.join(", ")}]`;
        return yield* new ExportError({ reason: `${name} must be F32 [${shape.join(", ")}] but ${found}` });
      }
      used.set(name, tensor);
    }
    return used;
  },
);

/**
 * The nodes that compute features from images, which have the names `named`. Fails with an `ExportError` at an op that has
 * no rule.
 */
export const onnxNodes: (
  images: Tensor,
  features: Tensor,
  named?: { readonly images: string; readonly features: string },
) => Effect.Effect<readonly OnnxNode[], ExportError> = Effect.fnUntraced(function* (
  images,
  features,
  named = { images: "images", features: "features" },
) {
  const last = unfolded(features);
  const layers = new Map<Tensor, Layer>();
  const open = [last];
  while (open.length > 0) {
    const x = open.pop()!;
    if (x === images || layers.has(x)) continue;
    const layer = layerOf(x);
    if (layer === null) {
      const op = x.source.kind === "op" ? x.source.op.name : x.source.kind;
      return yield* new ExportError({ reason: `there is no operator for this use of "${op}"` });
    }
    layers.set(x, layer);
    open.push(...layer.inputs);
  }

  const names = new Map([[images, named.images]]);
  return [...layers].sort(([a], [b]) => a.id - b.id).map(([x, { operator, inputs, weights, attributes }]) => {
    const read = inputs.map((each) => names.get(each)!);
    // A node has the name of its weights, or else that of its input and its operator.
    const name = weights[0]?.replace(/\.weight$/, "") ?? `${read[0]}.${operator.toLowerCase()}`;
    const output = x === last ? named.features : name;
    names.set(x, output);
    return { operator, name, inputs: [...read, ...weights], output, attributes };
  });
});

/** An operator of ONNX with the tensors and the names of the weights that it reads, tensors first. */
interface Layer {
  readonly operator: string;
  readonly inputs: readonly Tensor[];
  readonly weights: readonly string[];
  readonly attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** The operator for each op that encoders are made of, by the op's name. */
const RULES: Readonly<Record<string, (inputs: readonly Tensor[], attributes: never) => Layer>> = {
  conv2d: ([x, w], { stride, pad, dilation, groups }: Convolution) => ({
    operator: "Conv",
    inputs: [x],
    weights: [nameOf(w)],
    attributes: {
      strides: [stride, stride],
      pads: [pad, pad, pad, pad],
      dilations: [dilation, dilation],
      group: groups,
    },
  }),
  // A 1×1 convolution.
  matmul: ([x, w]) => ({ operator: "Conv", inputs: [x], weights: [nameOf(w)], attributes: {} }),
  // Of a 1×1 convolution.
  addBias: ([y, bias]) => {
    const { source } = unfolded(y);
    const [x, w] = source.kind === "op" && source.op.name === "matmul" ? source.inputs : [y, y];
    return { operator: "Conv", inputs: [x], weights: [nameOf(w), nameOf(bias)], attributes: {} };
  },
  concat: (inputs) => ({ operator: "Concat", inputs, weights: [], attributes: { axis: 1 } }),
  batchNormByRunning: ([x, , , bias], { weight, running, epsilon }: ByRunning) => ({
    operator: "BatchNormalization",
    inputs: [x],
    weights: [nameOf(weight), nameOf(bias), `${nameOf(running)}_mean`, `${nameOf(running)}_var`],
    attributes: { epsilon: { float: epsilon } },
  }),
  relu: (inputs) => ({ operator: "Relu", inputs, weights: [], attributes: {} }),
  add: (inputs) => ({ operator: "Add", inputs, weights: [], attributes: {} }),
  maxPool: (inputs, { size, stride, pad }: MaxPool) => ({
    operator: "MaxPool",
    inputs,
    weights: [],
    attributes: { kernel_shape: [size, size], strides: [stride, stride], pads: [pad, pad, pad, pad] },
  }),
  averagePool: (inputs, { size, stride }: AveragePool) => ({
    operator: "AveragePool",
    inputs,
    weights: [],
    attributes: { kernel_shape: [size, size], strides: [stride, stride], ceil_mode: size < stride ? 0 : 1 },
  }),
};

const layerOf = ({ source }: Tensor): Layer | null => {
  if (source.kind !== "op" || !Object.hasOwn(RULES, source.op.name)) return null;
  const layer = RULES[source.op.name](source.inputs, source.attributes as never);
  return layer.weights.includes(COMPUTED) ? null : { ...layer, inputs: layer.inputs.map(unfolded) };
};

/** The map behind a reshape that flattens its rows and columns, or the tensor itself where it is anything else. */
const unfolded = (x: Tensor): Tensor =>
  x.source.kind === "reshape" && x.source.of.shape.at(-1) === x.shape.at(-1) ? unfolded(x.source.of) : x;

/** The name of a parameter, or COMPUTED for a tensor that is none. */
const nameOf = (x: Tensor): string => {
  const { source } = storageOf(x);
  return source.kind === "input" ? source.name : COMPUTED;
};
const COMPUTED = "";
