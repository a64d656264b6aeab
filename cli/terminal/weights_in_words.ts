import { match } from "ts-pattern";
import type { WeightsFile } from "../../pipeline/weights/weights_file.ts";

/** Says in a few words what a file of weights is. */
export const whatItIs = ({ container, content }: WeightsFile): string => {
  const what = match(content)
    .with({ kind: "checkpoint" }, ({ meta }) => `a checkpoint of this project after step ${meta.step}`)
    .with(
      { kind: "published" },
      ({ published }) => `a checkpoint of the published code after epoch ${published.epoch}`,
    )
    .with({ kind: "networks" }, () => "the networks of a run, without the run")
    .with({ kind: "encoder" }, () => "an encoder")
    .exhaustive();
  return `${what} (${container})`;
};
