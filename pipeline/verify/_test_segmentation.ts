/** What tests of recorded fine-tuning share. */
import { readSafetensors, type TensorFile } from "../../data/formats/safetensors.ts";

/** A recording that comes with the project, by its name. */
export const segmentationRecording = (name: string): ReturnType<typeof readSafetensors> =>
  readSafetensors(
    Deno.readFileSync(new URL(`../../testdata/segmentation/${name}.safetensors`, import.meta.url)),
    name,
  );

/** The recording with other values of its configuration. */
export const changed = (recording: TensorFile, change: Readonly<Record<string, unknown>>): TensorFile => ({
  ...recording,
  metadata: {
    ...recording.metadata,
    config: JSON.stringify({ ...JSON.parse(recording.metadata.config), ...change }),
  },
});
