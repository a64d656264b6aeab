import type { FileTensor } from "../../data/formats/file_tensor.ts";

/** One line of `slotcon verify`: how far a group of computed values is from the recorded ones. */
export interface VerifyRow {
  readonly group: string;
  /** How many were compared. */
  readonly tensors?: number;
  /** The largest error of the group, in the sense of its tolerance. */
  readonly worst: number;
  readonly tolerance: string;
  readonly holds: boolean;
  /** Where the largest error was found. */
  readonly note?: string;
}

/** What replaying a recording gave: the comparison, and the computed values under the recording's own names. */
export interface Verification {
  readonly rows: readonly VerifyRow[];
  readonly outputs: ReadonlyMap<string, FileTensor>;
}
