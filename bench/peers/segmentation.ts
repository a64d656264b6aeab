/** A step of fine-tuning a segmentor as this project's contender does it; torch_segmentation.py is the same in PyTorch. */
import { Effect } from "effect";
import { constant, input } from "../../ops/graph/tensor.ts";
import { compile } from "../../ops/runtime/program.ts";
import { upload } from "../../pipeline/run/state.ts";
import { type SegmentationBatch, segmentationStep } from "../../pipeline/transfer/segmentation/step.ts";
import { numbers, type SegmentationWork } from "./cases.ts";
import { initialValues } from "./initial_values.ts";

const IGNORED = 255;

/** A program whose outputs are the losses of the heads, and what each run uploads. */
export const segmentation = Effect.fnUntraced(function* (work: SegmentationWork) {
  const { state, metrics } = segmentationStep(batchOf(work), input("learningRate", []), work);
  const { loss_head, loss_aux } = metrics;
  const graph = {
    label: "the step",
    updates: state.updates,
    outputs: { loss_head, ...loss_aux === undefined ? {} : { loss_aux } },
    stageOf: () => "step",
  };
  const program = yield* compile(graph, yield* upload(state, initialValues(state)));
  return { program, uploads: { learningRate: Float32Array.of(work.learningRate) } };
});

/** Pictures of noise, labels of noise among which each class and "ignored" are equally frequent. */
const batchOf = (work: SegmentationWork): SegmentationBatch => {
  const { batchSize: B, cropSize: S, classes, dropout, headChannels, auxiliaryChannels } = work;
  const labels = Uint32Array.from(numbers([B, S, S], 2), (x) => {
    const label = Math.floor((x + 1) / 2 * (classes + 1));
    return label < classes ? label : IGNORED;
  });
  const kept = (channels: number, seed: number) => {
    const factors = numbers([B, channels], seed).map((x) => (x + 1) / 2 < dropout ? 0 : 1 / (1 - dropout));
    return constant(factors, [B, channels]);
  };
  return {
    images: constant(numbers([B, S, S, 3], 1), [B, S, S, 3]),
    labels: constant(labels, [B, S, S]),
    kept: dropout === 0 ? null : {
      head: kept(headChannels, 3),
      auxiliary: work.auxiliaryWeight === 0 ? null : kept(auxiliaryChannels, 4),
    },
  };
};
