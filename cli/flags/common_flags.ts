/** Flags that several commands have. */
import { Flag } from "effect/cli";

export const deviceFlag = Flag.Literals("device", ["native", "dawn"]).pipe(
  Flag.withDescription("WebGPU of Deno (native) or of the npm package webgpu (dawn)"),
  Flag.withDefault("native" as const),
);

export const whichFlag = Flag.Literals("which", ["teacher", "student"]).pipe(
  Flag.withDescription("whose encoder, where the file has both"),
  Flag.withDefault("teacher" as const),
);
