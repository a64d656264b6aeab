/** The recorded augmentation in testdata/augment, for tests. */
import { Effect } from "effect";
import type { Picture } from "./decode_image.ts";
import { readAugmentRecording } from "./formats/augment_recording.ts";
import { readSafetensors } from "./formats/safetensors.ts";

export const recordingFile = new URL("../testdata/augment/augment.safetensors", import.meta.url);

const file = await Effect.runPromise(
  readSafetensors(await Deno.readFile(recordingFile), "augment.safetensors"),
);

export const { size, draws } = await Effect.runPromise(readAugmentRecording(file, "augment.safetensors"));

export const recorded = (tensor: string) => file.tensors.get(tensor)!;

/** A recorded [H, W, 3] tensor as a picture. */
export const recordedPicture = (tensor: string): Picture => {
  const { shape: [height, width], data } = recorded(tensor);
  return { width, height, rgb: data as Uint8Array };
};
