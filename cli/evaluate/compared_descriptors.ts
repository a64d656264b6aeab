/** The descriptors that the evaluations of an encoder compare. */
import { Effect } from "effect";
import {
  cellColors,
  colorHistograms,
  encoderDescriptor,
  type NamedDescriptor,
} from "../../pipeline/inference/descriptors.ts";
import { type FrozenEncoder, untrainedEncoder } from "../../pipeline/inference/frozen_encoder.ts";
import type { EncoderOptions } from "../../pipeline/model/resnet.ts";

/** Descriptors of the evaluated encoder, of the same one untrained, and of colours, of whole images or of cells of a grid. */
export const comparedDescriptors = Effect.fnUntraced(function* (
  { values, options }: FrozenEncoder,
  { seed, per, ...shown }: {
    readonly seed: number;
    readonly per: "picture" | "cell";
    readonly imageSize: number;
    readonly batch: number;
    readonly outputStride?: EncoderOptions["outputStride"];
  },
) {
  const strided = { ...options, outputStride: shown.outputStride ?? options.outputStride };
  const own = yield* encoderDescriptor({ values, options: strided }, { ...shown, per });
  const untrained = yield* encoderDescriptor(untrainedEncoder(strided, seed), { ...shown, per });
  const colors = per === "picture"
    ? { method: "colour histograms", descriptor: colorHistograms(shown.imageSize) }
    : { method: "colour and place", descriptor: cellColors(shown.imageSize, own.grid) };
  return [
    { method: "this encoder", descriptor: own },
    { method: "the same untrained", descriptor: untrained },
    colors,
  ] satisfies NamedDescriptor[] as NamedDescriptor[];
});
