import { match } from "ts-pattern";
import { SEGMENTATION } from "../../pipeline/transfer/segmentation/task.ts";
import type { WeightsFile } from "../../pipeline/weights/weights_file.ts";

/** Says in a few words what a file of weights is. */
export const whatItIs = ({ container, content, tensors }: WeightsFile): string => {
  const segmentor = () => `a segmentor of ${tensors.get("decode_head.conv_seg.weight")?.shape[0]} classes`;
  const what = match(content)
    .with(
      { kind: "checkpoint", task: SEGMENTATION.name },
      ({ meta }) => `${segmentor()}, a checkpoint of fine-tuning after step ${meta.step}`,
    )
    .with({ kind: "checkpoint" }, ({ meta }) => `a checkpoint of this project after step ${meta.step}`)
    .with(
      { kind: "published" },
      ({ published }) => `a checkpoint of the published code after epoch ${published.epoch}`,
    )
    .with({ kind: "segmentor" }, () => `${segmentor()} under mmsegmentation's names`)
    .with({ kind: "networks" }, () => "the networks of a run, without the run")
    .with({ kind: "encoder" }, () => "an encoder")
    .exhaustive();
  return `${what} (${container})`;
};
