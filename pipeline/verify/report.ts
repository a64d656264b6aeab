/** The results of replaying a recording. */
import type { FileTensor } from "../../data/formats/file_tensor.ts";

/** A line of `slotcon verify`: how far a group of computed values is from the recorded ones. */
export interface VerifyRow {
  /** The name of the group. */
  readonly group: string;
  /** The number of tensors that were compared. */
  readonly tensors?: number;
  /** The largest error of the group, in the unit of its tolerance. */
  readonly worst: number;
  /** The tolerance, as text. */
  readonly tolerance: string;
  /** Whether all errors are within the tolerance. */
  readonly holds: boolean;
  /** Where the largest error is. */
  readonly note?: string;
}

/** A recording that has been replayed. */
export interface Verification {
  /** The comparison, group by group. */
  readonly rows: readonly VerifyRow[];
  /** The computed values under the recording's own names. */
  readonly outputs: ReadonlyMap<string, FileTensor>;
}
