import type { FileTensor } from "../../data/formats/file_tensor.ts";

/** One line of `slotcon verify`: how far a group of computed values is from the recorded ones. */
export interface VerifyRow {
  readonly group: string;
  readonly tensors?: number; // how many were compared
  readonly worst: number; // the largest error of the group, in the sense of its tolerance
  readonly tolerance: string;
  readonly holds: boolean;
  readonly note?: string; // where the largest error was found
}

/** What replaying a recording gave: the comparison, and the computed values under the recording's own names. */
export interface Verification {
  readonly rows: readonly VerifyRow[];
  readonly outputs: ReadonlyMap<string, FileTensor>;
}
