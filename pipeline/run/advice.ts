/**
 * What to tell who runs a command about an error of `ops`, which knows no options: the sentence with options' names.
 */
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { GpuError, GpuFailure } from "../../ops/runtime/gpu.ts";

const OF_GPU: Readonly<Partial<Record<GpuFailure, string>>> = {
  package: "Use --device native, or install the npm package webgpu for this platform",
  precision: "Use --precision f32",
  memory: "Lower --batch-size, set --memory-limit, or free this GPU",
  kernel: "Please report this with the output of `slotcon doctor`",
  run: "If memory ran out, lower --batch-size or set --memory-limit; else please report this",
  lost:
    "Lower --batch-size, set --memory-limit, or update the driver; --auto-resume continues from the last checkpoint",
};

/** Which options to change. */
export const adviceOn = (error: GpuError | PlanError): string => {
  if (error._tag === "GpuError") return OF_GPU[error.kind] ?? error.remedy;
  return error.tensor === null
    ? "Raise --memory-limit, or lower --batch-size or the size of the pictures"
    : "Lower --batch-size or the size of the pictures";
};

/** What failed, why, and which options to change. */
export const explained = (error: GpuError | PlanError): string =>
  `Cannot ${error.subject}: ${error.reason}. ${adviceOn(error)}`;
