/** The recorded augmentation in testdata/augment, for tests. */
import { Effect } from "effect";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { readAugmentRecording } from "./read_augment_recording.ts";

export const recordingFile = new URL("../../testdata/augment/augment.safetensors", import.meta.url);

const file = await Effect.runPromise(
  readSafetensors(await Deno.readFile(recordingFile), "augment.safetensors"),
);

export const { size, draws } = await Effect.runPromise(readAugmentRecording(file, "augment.safetensors"));

export const recorded = (tensor: string) => file.tensors.get(tensor)!;

/** A recorded [H, W, 3] tensor as an image. */
export const recordedPicture = (tensor: string): Picture => {
  const { shape: [height, width], data } = recorded(tensor);
  return { width, height, rgb: data as Uint8Array };
};
