/** Buffer donation: next values of the state that are written over the current ones. */
import { sizeOf } from "../graph/shape.ts";
import { storageOf, type Tensor } from "../graph/tensor.ts";
import { type FusedInput, fusedInputsOfAll } from "./fused_inputs.ts";
import { isElementwise } from "./graph.ts";
import type { ScheduleStep } from "./schedule.ts";

/** How the state gets its next values. */
export interface StateUpdates {
  /** Next values that kernels write over the current value, an input of the graph. */
  readonly inPlace: ReadonlyMap<Tensor, Tensor>;
  /** State whose next value is stored elsewhere and has to be copied after a run. */
  readonly copies: readonly { readonly from: Tensor; readonly to: Tensor }[];
}

/**
 * Which updates can be in place: a next value takes the memory of the current one where an elementwise kernel computes
 * it, no later kernel reads the current one, and the kernel itself reads it only at the index that it writes.
 */
export const updatesInPlace = (
  updates: ReadonlyMap<Tensor, Tensor>,
  steps: readonly ScheduleStep[],
  { isInlined, readsOf }: {
    readonly isInlined: (x: Tensor) => boolean;
    readonly readsOf: (x: Tensor) => readonly Tensor[];
  },
): StateUpdates => {
  const stepOf = new Map<Tensor, number>();
  const lastReader = new Map<Tensor, number>();
  steps.forEach(({ members }, i) => {
    for (const x of members) stepOf.set(x, i);
    for (const read of members.flatMap(readsOf)) lastReader.set(read, i);
  });
  const canOverwrite = (current: Tensor, next: Tensor) => {
    const step = stepOf.get(next);
    if (step === undefined || !isElementwise(next)) return false;
    if (sizeOf(next.shape) !== sizeOf(current.shape) || (lastReader.get(current) ?? -1) > step) return false;
    return fusedInputsOfAll(steps[step].members, isInlined)!
      .every((input) => input.tensor !== current || isReadInOrder(input));
  };

  const inPlace = new Map<Tensor, Tensor>();
  const copies: { from: Tensor; to: Tensor }[] = [];
  for (const [current, next] of updates) {
    const stored = storageOf(next);
    if (stored === current) continue; // the state stays as it is
    if (!inPlace.has(stored) && canOverwrite(current, stored)) inPlace.set(stored, current);
    else copies.push({ from: next, to: current });
  }
  return { inPlace, copies };
};

/** Whether element i is read where element i is computed. */
const isReadInOrder = ({ offset, layout }: FusedInput): boolean =>
  offset === 0 && layout.length <= 1 && layout.every(({ stride }) => stride === 1);
