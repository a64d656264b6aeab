/** The kernels of ops that are not fused, in slices where a tensor is larger than one binding. */
import { alignmentOf, bytesOf, elementBytes, type Kernel, type Operand } from "../graph/kernel.ts";
import type { StatisticsEpilogue } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor } from "../graph/tensor.ts";
import { sumPartials } from "../kernels/partial_sums.ts";
import type { EmissionContext } from "./emission_context.ts";

/**
 * The kernels of an op that is not fused, with an epilogue for `statistics` where these are asked for. Where a tensor
 * is larger than one binding and the op allows it, computes slices along the first axis, without the epilogue.
 */
export const opKernels = (
  x: OpTensor,
  { operandOf, scratch, adapter, choose }: EmissionContext,
  statistics: StatisticsEpilogue | null,
): readonly Kernel[] => {
  const { op, attributes } = x.source;
  const output = operandOf(x);
  const inputs = x.source.inputs.map(operandOf);
  const kernelsOf = (
    inputs: readonly Operand[],
    output: Operand,
    statistics: StatisticsEpilogue | null,
  ): readonly Kernel[] => op.kernels!({ inputs, output, attributes, scratch, adapter, statistics, choose });
  if ([...inputs, output].every((operand) => bytesOf(operand) <= adapter.maxBinding)) {
    return kernelsOf(inputs, output, statistics);
  }

  const slices = op.slices?.(x.source.inputs) ?? null;
  const slicing = slices === null ? null : slicingOf(
    [...slices.along.map((i) => inputs[i]), ...slices.output === "rows" ? [output] : []],
    adapter.maxBinding,
  );
  const size = sizeOf(output.shape);
  const addsTerms = slices?.output === "sum";
  if (slices === null || slicing === null || (addsTerms && size % 64 !== 0)) { // terms are aligned in f32
    return kernelsOf(inputs, output, null); // too large to be bound: refused by `overLimit`
  }
  const terms = addsTerms ? scratch([slicing.count, size]) : null;
  const kernels = Array.from({ length: slicing.count }).flatMap((_, i) =>
    kernelsOf(
      inputs.map((operand, at) => slices.along.includes(at) ? slicing.slice(operand, i) : operand),
      terms === null ? slicing.slice(output, i) : { ...terms, offset: i * size, shape: output.shape },
      null,
    )
  );
  return terms === null
    ? kernels
    : [...kernels, ...sumPartials(terms, output, 1, slicing.count, size, scratch)];
};

/** How operands are cut along their first axis that is not 1. */
interface Slicing {
  readonly count: number;
  readonly slice: (operand: Operand, index: number) => Operand;
}

/**
 * Cuts operands, which have as many rows each, into slices that one binding can hold and that begin where a binding
 * may. Null where not even the smallest such slice fits.
 */
const slicingOf = (operands: readonly Operand[], maxBinding: number): Slicing | null => {
  const rows = operands[0].shape[rowAxis(operands[0])];
  const unit = Math.max(...operands.map((operand) => {
    const alignment = alignmentOf(operand);
    return alignment / greatestCommonDivisor(alignment, rowSize(operand));
  }));
  const most = Math.min(
    ...operands.map((operand) => maxBinding / elementBytes(operand) / rowSize(operand)),
  );
  const rowsPerSlice = Math.floor(most / unit) * unit;
  return rowsPerSlice === 0 ? null : {
    count: Math.ceil(rows / rowsPerSlice),
    slice: (operand, index) => ({
      ...operand,
      offset: operand.offset + index * rowsPerSlice * rowSize(operand),
      shape: operand.shape.with(rowAxis(operand), Math.min(rowsPerSlice, rows - index * rowsPerSlice)),
    }),
  };
};

const rowAxis = ({ shape }: Operand): number => shape.findIndex((size) => size !== 1);
const rowSize = (operand: Operand): number => sizeOf(operand.shape.slice(rowAxis(operand) + 1));

const greatestCommonDivisor = (a: number, b: number): number => b === 0 ? a : greatestCommonDivisor(b, a % b);
