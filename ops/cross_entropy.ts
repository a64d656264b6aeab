/**
 * Cross-entropy of the first rows and columns of a table; only the device knows how many are in use.
 *
 *     loss[r] = log Σ_{c < columns} exp(x[r, c]) − x[r, label[r]]   for r < rows, else 0
 *
 * Unused rows and columns may hold anything, NaN included, and get no gradient.
 */
import { shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { rowVariants, type RowWork } from "./kernels/row_reduction.ts";
import { kernel } from "./kernels/wgsl.ts";

/**
 * Logits [R, C], labels [R], rowCount [1] and columnCount [1] (u32) to the losses [R]. The labels of the first rowCount
 * rows must be below columnCount.
 */
export const crossEntropyRows = (
  logits: Tensor,
  labels: Tensor,
  rowCount: Tensor,
  columnCount: Tensor,
): Tensor => crossEntropyOp([logits, labels, rowCount, columnCount], undefined);

const crossEntropyOp = defineOp("crossEntropyRows", {
  takes: ["f32", "u32", "u32", "u32"],
  precision: "full",
  shape: ([logits, labels, ...counts]) =>
    logits.shape.length === 2 && labels.shape.length === 1 && labels.shape[0] === logits.shape[0] &&
      counts.every((count) => sizeOf(count.shape) === 1)
      ? labels.shape
      : shapeError(
        "crossEntropyRows",
        "logits [R, C], labels [R] and counts [1]",
        ...[logits, labels, ...counts].map(({ shape }) => shape),
      ),
  kernels: ({ inputs: [logits, labels, rowCount, columnCount], output, adapter, choose }) => {
    const [rows, width] = logits.shape;
    const kernelOf = (work: RowWork) =>
      kernel({
        label: "crossEntropyRows",
        reads: { logits, labels, rowCount, columnCount },
        writes: { loss: output },
        sizes: { rows, width },
        ...work.launch,
        functions: work.functions,
        main: /* wgsl */ `
  ${work.origin}
  if (row >= rowCount[0]) {
    if (start == 0u) { loss[row] = 0.0; }
    return;
  }
  let first = row * p.width;
  let columns = min(columnCount[0], p.width);
  var top = -3.4028234e38;
  for (var c = start; c < columns; c += step) { top = max(top, logits[first + c]); }
  let largest_logit = ${work.largest("top")};
  var sum = 0.0;
  for (var c = start; c < columns; c += step) { sum += exp(logits[first + c] - largest_logit); }
  let whole = ${work.total("sum")};
  if (start == 0u) { loss[row] = log(whole) - (logits[first + labels[row]] - largest_logit); }`,
      });
    return choose(rowVariants(width, adapter, (split) => [kernelOf(split(rows))]));
  },
  backward: ({ inputs, output, gradient }) => [
    crossEntropyGradient([...inputs, output, gradient], undefined),
    null,
    null,
    null,
  ],
});

/** (softmax − one-hot) · g, where softmax[r, c] = exp(x[r, c] − x[r, label[r]] − loss[r]) needs no further sum. */
const crossEntropyGradient = defineOp("crossEntropyGradient", {
  takes: ["f32", "u32", "u32", "u32", "f32", "f32"],
  precision: "full",
  shape: ([logits]) => logits.shape,
  kernels: ({ inputs: [logits, labels, rowCount, columnCount, loss, gradient], output, adapter }) => {
    const [rows, width] = logits.shape;
    const each = adapter.cpu ? Math.min(width, 64) : 1;
    const parts = Math.ceil(width / each);
    return [kernel({
      label: "crossEntropyGradient",
      reads: { logits, labels, rowCount, columnCount, loss, gradient },
      writes: { dx: output },
      sizes: { width, each, parts },
      threads: rows * parts,
      main: /* wgsl */ `
  let row = id / p.parts;
  let first = row * p.width;
  let columns = select(0u, columnCount[0], row < rowCount[0]);
  let label = labels[row];
  let own = logits[first + min(label, p.width - 1u)];
  let g = gradient[row];
  let start = id % p.parts * p.each;
  for (var c = start; c < min(start + p.each, p.width); c++) {
    let difference = exp(logits[first + c] - own - loss[row]) - f32(c == label);
    dx[first + c] = select(0.0, difference * g, c < columns);
  }`,
    })];
  },
});
