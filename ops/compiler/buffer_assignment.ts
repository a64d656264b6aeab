/**
 * Buffer assignment: which tensors share memory, and under which number. Numbers ("storages") are given out in the
 * order in which kernels first use them; the memory plan maps them to buffers.
 */
import { bytesOf, type Operand } from "../graph/kernel.ts";
import type { LoweringContext } from "../graph/lowering.ts";
import type { Shape } from "../graph/shape.ts";
import { storageOf, type Tensor } from "../graph/tensor.ts";

/** Memory that a program needs, of one tensor or for scratch. */
export interface Storage {
  readonly name: string;
  readonly bytes: number;
  readonly isScratch: boolean;
}

/** Gives out storages. */
export interface BufferAssignment {
  /** Where the values of a tensor are stored, for now. */
  readonly operandOf: (x: Tensor) => Operand;
  /** Reserves memory that one tensor's kernels use while they run. */
  readonly scratch: LoweringContext<unknown>["scratch"];
  /** Gives a tensor that is computed again new memory; `operandOf` gives the new one from now on. */
  readonly reassign: (x: Tensor) => void;
  /** All storages so far; their numbers are their indices. */
  readonly storages: readonly Storage[];
}

/**
 * Assigns memory to tensors when it is first asked for them. Reshapes share the memory of their source, and a next
 * value of the state that is updated `inPlace` that of the current one; tensors in `half` are stored in f16.
 */
export const assignBuffers = (
  { inPlace, half, narrowing }: {
    readonly inPlace: ReadonlyMap<Tensor, Tensor>;
    readonly half: ReadonlySet<Tensor>;
    readonly narrowing: Operand["narrowing"];
  },
): BufferAssignment => {
  const storages: Storage[] = [];
  const operands = new Map<Tensor, Operand>();
  const reserve = (shape: Shape, dtype: Operand["dtype"], name: string, isScratch: boolean): Operand => {
    const operand: Operand = { shape, dtype, storage: storages.length, offset: 0, narrowing };
    storages.push({ name, bytes: bytesOf(operand), isScratch });
    return operand;
  };
  const ownerOf = (x: Tensor) => inPlace.get(storageOf(x)) ?? storageOf(x);
  return {
    storages,
    scratch: (shape, dtype = "f32") => reserve(shape, dtype, "scratch", true),
    reassign: (x) => void operands.delete(ownerOf(x)),
    operandOf: (x) => {
      const owner = ownerOf(x);
      let operand = operands.get(owner);
      if (operand === undefined) {
        operand = reserve(owner.shape, half.has(owner) ? "f16" : owner.dtype, nameOf(owner), false);
        operands.set(owner, operand);
      }
      return { ...operand, shape: x.shape };
    },
  };
};

const nameOf = ({ source, shape }: Tensor): string =>
  source.kind === "op"
    ? `${source.op.name} [${shape.join(", ")}]`
    : source.kind === "input"
    ? source.name
    : source.kind;
