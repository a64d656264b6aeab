/** A whole segmentor as an ONNX file: from the pixels of pictures to the scores of the classes at each of them. */
import { Effect } from "effect";
import type { FileTensor } from "../../../data/formats/file_tensor.ts";
import { type OnnxNode, writeOnnx } from "../../../data/formats/onnx.ts";
import { PROJECT_VERSION } from "../../run/project_version.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { checkpointShapes, fileTensor } from "../../run/state_layout.ts";
import { ExportError, onnxNodes, onnxWeights } from "../../weights/encoder_onnx.ts";
import { segmentor } from "./network.ts";
import { PIXEL_STATISTICS } from "./step_graph.ts";
import { type SavedSegmentor, segmentorOptions } from "./weights.ts";

/** Side of the images for which the graph is built; the file is for images of any size. */
const SIDE = 128;

/**
 * The bytes of an ONNX file, in pieces to be written one after the other: "images" [batch, 3, height, width], RGB from 0
 * to 255, to "scores" [batch, classes, height, width]. Normalising and enlarging are in the file. The same segmentor gives
 * the same bytes. Fails with an `ExportError` beyond the 2 GiB of a protobuf file.
 */
export const segmentorOnnx: (
  saved: SavedSegmentor,
) => Effect.Effect<readonly Uint8Array<ArrayBuffer>[], ExportError> = Effect.fn("segmentorOnnx")(
  function* ({ config, classes, values }) {
    const options = { ...segmentorOptions(config, classes.length), auxiliaryWeight: 0 }; // for training alone
    const state = new StateBuilder();
    const images = input("images", [1, SIDE, SIDE, 3]);
    const { head: { logits } } = segmentor(student(state, null), images, options);
    const { mean, std } = PIXEL_STATISTICS[config.pixelStatistics];
    const asSegmentor = Effect.mapError(({ reason }: ExportError) =>
      new ExportError({ reason, network: "segmentor" })
    );
    const nodes = yield* onnxNodes(images, logits, { images: "normalised", features: "logits" }).pipe(
      asSegmentor,
    );
    const tensors = new Map([...values].map(([name, tensor]) => [name, fileTensor(name, tensor)]));
    const weights = yield* onnxWeights(checkpointShapes(state), tensors).pipe(asSegmentor);
    return yield* Effect.try({
      try: () =>
        writeOnnx({
          producer: { name: "slotcon", version: PROJECT_VERSION },
          metadata: {
            arch: config.arch,
            width: String(config.width),
            output_stride: String(config.outputStride),
            classes: JSON.stringify(classes.map(({ name }) => name)),
            align_corners: String(config.alignCorners),
            long_side: String(config.longSide),
            short_side: String(config.shortSide),
          },
          name: "segmentor",
          input: {
            name: "images",
            shape: ["batch", 3, "height", "width"],
            about: "RGB from 0 to 255; in evaluation resized to fit long_side × short_side",
          },
          output: {
            name: "scores",
            shape: ["batch", classes.length, "height", "width"],
            about: "scores of the classes before softmax",
          },
          nodes: [...normalizing, ...nodes, ...enlarging(config.alignCorners)],
          weights: new Map([...weights, ["image_mean", channels(mean)], ["image_std", channels(std)]]),
        }),
      catch: (error) => new ExportError({ reason: (error as RangeError).message, network: "segmentor" }),
    });
  },
);

const normalizing: readonly OnnxNode[] = [
  { operator: "Sub", name: "centred", inputs: ["images", "image_mean"], output: "centred", attributes: {} },
  {
    operator: "Div",
    name: "normalised",
    inputs: ["centred", "image_std"],
    output: "normalised",
    attributes: {},
  },
];

/** Nodes that enlarge "logits" to the size of the images. */
const enlarging = (alignCorners: boolean): readonly OnnxNode[] => [
  { operator: "Shape", name: "size", inputs: ["images"], output: "size", attributes: { start: 2, end: 4 } },
  { operator: "Shape", name: "maps", inputs: ["logits"], output: "maps", attributes: { start: 0, end: 2 } },
  {
    operator: "Concat",
    name: "enlarged",
    inputs: ["maps", "size"],
    output: "enlarged",
    attributes: { axis: 0 },
  },
  {
    operator: "Resize",
    name: "scores",
    inputs: ["logits", "", "", "enlarged"],
    output: "scores",
    attributes: {
      mode: { text: "linear" },
      coordinate_transformation_mode: { text: alignCorners ? "align_corners" : "half_pixel" },
    },
  },
];

/** A number for each channel of images [batch, 3, height, width]. */
const channels = (values: readonly number[]): FileTensor => ({
  dtype: "F32",
  shape: [1, 3, 1, 1],
  data: Float32Array.from(values),
});
