/** The kernels of ops that are not fused, in slices where a tensor is larger than one binding. */
import { alignmentOf, bytesOf, elementBytes, type Kernel, type Operand } from "../graph/kernel.ts";
import type { AdapterTraits, LoweringContext, StatisticsEpilogue } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { sumPartials } from "../kernels/partial_sums.ts";

type Choose = LoweringContext<never>["choose"];

/**
 * The kernels of an op that is not fused; in slices along its first axis where a tensor is larger than one binding, if
 * the op can be done so.
 */
export const opKernels = (
  x: Tensor,
  operandOf: (x: Tensor) => Operand,
  scratch: LoweringContext<never>["scratch"],
  adapter: AdapterTraits,
  choose: Choose,
  moments: StatisticsEpilogue | null,
): readonly Kernel[] => {
  if (x.source.kind !== "op") return [];
  const { op, attributes } = x.source;
  const inputs = x.source.inputs.map(operandOf);
  const output = operandOf(x);
  const whole = (statistics: StatisticsEpilogue | null) =>
    op.kernels!({ inputs, output, attributes, scratch, adapter, statistics, choose });
  if ([...inputs, output].every((operand) => bytesOf(operand) <= adapter.maxBinding)) return whole(moments);

  const slices = op.slices?.(x.source.inputs) ?? null;
  if (slices === null) return whole(null); // refused when it is bound
  const sliced = [...slices.along.map((i) => inputs[i]), ...(slices.output === "rows" ? [output] : [])];
  const axisOf = (operand: Operand) => operand.shape.findIndex((size) => size !== 1);
  const rowOf = (operand: Operand) => sizeOf(operand.shape.slice(axisOf(operand) + 1));
  const rows = sliced[0].shape[axisOf(sliced[0])];
  const unit = Math.max(...sliced.map((operand) => {
    const alignment = alignmentOf(operand);
    return alignment / greatestCommonDivisor(alignment, rowOf(operand));
  }));
  const most = Math.min(
    ...sliced.map((operand) => adapter.maxBinding / elementBytes(operand) / rowOf(operand)),
  );
  const each = Math.floor(most / unit) * unit;
  const size = sizeOf(output.shape);
  if (each === 0 || (slices.output === "sum" && size % 64 !== 0)) return whole(null); // partial sums are in f32

  const slice = (operand: Operand, first: number): Operand => ({
    ...operand,
    offset: operand.offset + first * rowOf(operand),
    shape: operand.shape.with(axisOf(operand), Math.min(each, rows - first)),
  });
  const parts = Math.ceil(rows / each);
  const partial = slices.output === "sum" ? scratch([parts, size]) : null;
  const kernels: Kernel[] = [];
  for (let part = 0; part < parts; part++) {
    kernels.push(...op.kernels!({
      statistics: null,
      inputs: inputs.map((operand, i) => (slices.along.includes(i) ? slice(operand, part * each) : operand)),
      output: partial === null
        ? slice(output, part * each)
        : { ...partial, offset: part * size, shape: output.shape },
      attributes,
      scratch,
      adapter,
      choose,
    }));
  }
  return partial === null ? kernels : [...kernels, ...sumPartials(partial, output, 1, parts, size, scratch)];
};

const greatestCommonDivisor = (a: number, b: number): number => b === 0 ? a : greatestCommonDivisor(b, a % b);
