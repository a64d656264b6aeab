/** Vertical fusion: which elementwise tensors are computed inside the kernels that read them. */
import type { AdapterTraits } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import { isOp, type OpTensor, storageOf, type Tensor } from "../graph/tensor.ts";
import { type FusedInput, fusedInputs } from "./fused_inputs.ts";
import { isElementwise, isFused } from "./graph.ts";

/** The most inputs of a tensor that is inlined into its only reader, and into several readers. */
const MOST_INPUTS = { oneReader: 8, severalReaders: 6 };

/**
 * The most inputs as large as a tensor that is inlined into several readers: it then costs no more reads than storing
 * it.
 */
const MOST_LARGE_INPUTS = 2;

/**
 * The elementwise tensors that are inlined: computed by the kernels that read them, and never stored. One with a single
 * reader is, unless it has many inputs. One with several readers is where it has at most two large inputs: reading
 * these again costs no more memory traffic than storing the tensor and reading it. Tensors in `kept` are always stored.
 */
export const chooseInlined = (
  live: readonly Tensor[],
  kept: ReadonlySet<Tensor>,
  { maxStorageBuffers }: AdapterTraits,
): ReadonlySet<Tensor> => {
  const readers = readersOf(live);
  const inlined = new Set<Tensor>();
  const mostInputs = maxStorageBuffers - 2; // one is for the result, another for a reduction's count of rows
  for (const x of live.filter(isOp)) {
    if (!isFused(x)) continue;
    const inputs = storingInputsUntil(x, inlined, (inputs) => tensorsOf(inputs).size <= mostInputs);
    if (!isElementwise(x) || kept.has(x)) continue;
    const users = readers.get(x) ?? [];
    if (users.every(isFused) && isCheapToRepeat(x, inputs, users.length)) inlined.add(x);
  }
  return inlined;
};

/** For each stored tensor the tensors that an op computes of it, once for each time that the op reads it. */
const readersOf = (live: readonly Tensor[]): ReadonlyMap<Tensor, readonly Tensor[]> => {
  const readers = new Map<Tensor, Tensor[]>();
  for (const x of live.filter(isOp)) {
    for (const input of x.source.inputs.map(storageOf)) {
      const known = readers.get(input);
      if (known === undefined) readers.set(input, [x]);
      else known.push(x);
    }
  }
  return readers;
};

/**
 * The inputs of the fused kernel of `x`. As long as strides cannot express how it reads them, or they are not `few`,
 * takes the one with the most inputs out of `inlined`, so that it is stored after all.
 */
const storingInputsUntil = (
  x: OpTensor,
  inlined: Set<Tensor>,
  few: (inputs: readonly FusedInput[]) => boolean,
): readonly FusedInput[] => {
  const isInlined = (x: Tensor) => inlined.has(x);
  const count = (input: Tensor) => fusedInputs(input, isInlined)?.length ?? Infinity;
  for (;;) {
    const inputs = fusedInputs(x, isInlined);
    if (inputs !== null && few(inputs)) return inputs;
    const candidates = x.source.inputs.map(storageOf).filter(isInlined);
    if (candidates.length === 0) throw new Error(`cannot fuse ${x.source.op.name}`);
    inlined.delete(candidates.sort((a, b) => count(b) - count(a))[0]);
  }
};

/** Whether each of `readers` kernels may compute `x` from its `inputs`. */
const isCheapToRepeat = (x: Tensor, inputs: readonly FusedInput[], readers: number): boolean => {
  if (readers === 1) return inputs.length <= MOST_INPUTS.oneReader;
  const large = tensorsOf(inputs.filter(({ tensor }) => sizeOf(tensor.shape) >= sizeOf(x.shape)));
  return large.size <= MOST_LARGE_INPUTS && inputs.length <= MOST_INPUTS.severalReaders;
};

const tensorsOf = (inputs: readonly FusedInput[]): ReadonlySet<Tensor> =>
  new Set(inputs.map((input) => input.tensor));
