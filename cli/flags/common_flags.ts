/** Flags that several commands have. */
import { Flag } from "effect/cli";
import { RUN_OPTIONS } from "../../pipeline/run/options.ts";
import { type RecipeName, RECIPES } from "../../pipeline/transfer/segmentation/config.ts";

export const deviceFlag = Flag.Literals("device", ["native", "dawn"]).pipe(
  Flag.withDescription("WebGPU of Deno (native) or of the npm package webgpu (dawn)"),
  Flag.withDefault("native" as const),
);

/** The share of pictures that are left out before the command stops, with a run's default. */
export const maxBadImagesFlag = Flag.Finite("max-bad-images").pipe(
  Flag.withDescription("share of unreadable pictures, which are left out, beyond which the command stops"),
  Flag.withDefault(RUN_OPTIONS.maxBadImages.initial),
);

export const whichFlag = Flag.Literals("which", ["teacher", "student"]).pipe(
  Flag.withDescription("whose encoder, where the file has both"),
  Flag.withDefault("teacher" as const),
);

export const recipeFlag = Flag.Literals("recipe", Object.keys(RECIPES) as RecipeName[]).pipe(
  Flag.withDescription(
    "of a segmentor of mmsegmentation's: how it was trained, which its file does not say; by default what it looks like",
  ),
  Flag.optional,
);
