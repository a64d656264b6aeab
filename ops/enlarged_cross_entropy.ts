/**
 * Cross-entropy of enlarged score maps, pixel by pixel, as semantic segmentation is trained. The enlarged maps, K numbers
 * a pixel, are never stored, neither on the way forward nor on the way back.
 *
 *     z[n,i,j,·] = x[n,·,·,·] enlarged bilinearly to the size of the labels, at pixel (i, j)
 *     loss[n,i,j] = log Σₖ exp(z[n,i,j,k]) − z[n,i,j,label[n,i,j]]
 *
 * Labels that are no class, 255 as a rule, are ignored: their loss is 0, and no gradient comes from them.
 */
import { greater, greaterEqual } from "./arithmetic.ts";
import { shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, reshape, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing } from "./kernels/bilinear.ts";
import { kernel, vectors } from "./kernels/wgsl.ts";
import { slice } from "./slice.ts";

/** How pixels lie on the cells of a map. */
export interface Enlarging {
  /** As in `Resizing`. */
  readonly alignCorners: boolean;
}

/** What is known of every pixel, [N, H, W] each. */
export interface PixelLosses {
  /** The cross-entropy; 0 where the label is ignored. */
  readonly loss: Tensor;
  /** 1 where the label is the class of the highest score (the first of equals), else 0; no gradient. */
  readonly hits: Tensor;
  /** 0 where the label is ignored, else 1; no gradient. */
  readonly counted: Tensor;
}

/** Logits [N, h, w, K] and labels [N, H, W] (u32). Throws ShapeError where these do not fit. */
export const enlargedCrossEntropy = (logits: Tensor, labels: Tensor, enlarging: Enlarging): PixelLosses => {
  const statistics = statisticsOp([logits, labels], enlarging);
  const outcome = reshape(slice(statistics, 3, OUTCOME, 1), labels.shape);
  return {
    loss: lossOp([logits, labels, statistics], enlarging),
    hits: greater(outcome, 0),
    counted: greaterEqual(outcome, 0),
  };
};

// The four statistics of a pixel: the largest score; the logarithm of Σₖ exp(score − largest); the loss; and 1, 0 or −1
// where the label is that of the largest score, another class, or ignored.
const OUTCOME = 3;

const statisticsOp = defineOp<Enlarging>("enlargedStatistics", {
  takes: ["f32", "u32"],
  precision: "full",
  shape: ([logits, labels]) => {
    const [N, height, width] = labels.shape;
    if (labels.shape.length !== 3 || logits.shape[0] !== N) {
      return shapeError(
        "enlargedCrossEntropy",
        "logits [N, h, w, K] and labels [N, H, W]",
        ...[logits, labels].map(({ shape }) => shape),
      );
    }
    requireResizing("enlargedCrossEntropy", logits.shape, { height, width });
    return [N, height, width, 4];
  },
  slices: imageSlices([0, 1]),
  kernels: ({ inputs: [logits, labels], output, attributes }) => {
    const [, rows, columns, K] = logits.shape;
    const [, height, width] = labels.shape;
    return [kernel({
      label: "enlargedStatistics",
      reads: { logits, labels },
      writes: { statistics: vectors(output) },
      sizes: { rows, columns, K, height, width },
      threads: sizeOf(labels.shape),
      functions: bilinearFunctions(attributes.alignCorners),
      main: /* wgsl */ `
  let label = labels[id];
  if (label >= p.K) {
    statistics[id] = vec4(0.0, 0.0, 0.0, -1.0);
    return;
  }
  let across = between(id % p.width, p.width, p.columns);
  let down = between(id / p.width % p.height, p.height, p.rows);
  let first = id / p.width / p.height * p.rows;
  let cells = vec4((first + down.low) * p.columns + vec2(across.low, across.high),
                   (first + down.high) * p.columns + vec2(across.low, across.high));
  let corners = p.K * cells;
  var largest = 0.0;
  var best = 0u;
  var own = 0.0;
  var sum = 0.0;
  for (var k = 0u; k < p.K; k++) {
    let above = mix(logits[corners.x + k], logits[corners.y + k], across.share);
    let below = mix(logits[corners.z + k], logits[corners.w + k], across.share);
    let score = mix(above, below, down.share);
    if (k == label) { own = score; }
    if (k == 0u) {
      largest = score;
      sum = 1.0;
    } else if (score > largest) {
      sum = sum * exp(largest - score) + 1.0;
      largest = score;
      best = k;
    } else { sum += exp(score - largest); }
  }
  let logarithm = log(sum);
  statistics[id] = vec4(largest, logarithm, logarithm - (own - largest), f32(best == label));`,
    })];
  },
});

/** Logits, labels and statistics to the losses [N, H, W]. */
const lossOp = defineOp<Enlarging>("enlargedCrossEntropy", {
  takes: ["f32", "u32", "f32"],
  precision: "full",
  shape: ([, labels]) => labels.shape,
  slices: imageSlices([2]),
  kernels: ({ inputs: [, , statistics], output }) => [kernel({
    label: "enlargedCrossEntropy",
    reads: { statistics: vectors(statistics) },
    writes: { loss: output },
    threads: sizeOf(output.shape),
    main: "loss[id] = statistics[id].z;",
  })],
  backward: ({ inputs, gradient, attributes }) => [
    enlargedGradient([...inputs, gradient], attributes),
    null,
    null,
  ],
});

/**
 * Logits, labels, statistics and the gradient of the losses to the gradient of the logits. Gathers over the pixels that
 * a cell reaches, in a fixed order: those whose upper left cell it is, and those to the left of and above these.
 */
const enlargedGradient = defineOp<Enlarging>("enlargedCrossEntropyGradient", {
  takes: ["f32", "u32", "f32", "f32"],
  precision: "full",
  shape: ([logits]) => logits.shape,
  slices: imageSlices([0, 1, 2, 3]),
  kernels: ({ inputs: [logits, labels, statistics, gradient], output, attributes }) => {
    const [, rows, columns, K] = logits.shape;
    const [, height, width] = labels.shape;
    return [kernel({
      label: "enlargedCrossEntropyGradient",
      reads: { logits, labels, statistics: vectors(statistics), gradient },
      writes: { dx: output },
      sizes: { rows, columns, K, height, width },
      threads: sizeOf(logits.shape),
      functions: `${bilinearFunctions(attributes.alignCorners)}
// The weight of a cell for a pixel that lies between \`low\` and \`high\`, which are the same at the border.
fn weightOf(cell: u32, low: u32, high: u32, share: f32) -> f32 {
  return select(0.0, 1.0 - share, cell == low) + select(0.0, share, cell == high);
}`,
      main: /* wgsl */ `
  let k = id % p.K;
  let column = id / p.K % p.columns;
  let row = id / p.K / p.columns % p.rows;
  let picture = id / p.K / p.columns / p.rows;
  var sum = 0.0;
  for (var top = max(row, 1u) - 1u; top <= row; top++) {
    let bottom = min(top + 1u, p.rows - 1u);
    let above = (picture * p.rows + top) * p.columns;
    let below = (picture * p.rows + bottom) * p.columns;
    let lastRow = firstAt(top + 1u, p.height, p.rows);
    for (var left = max(column, 1u) - 1u; left <= column; left++) {
      let right = min(left + 1u, p.columns - 1u);
      let upper = vec2(logits[(above + left) * p.K + k], logits[(above + right) * p.K + k]);
      let lower = vec2(logits[(below + left) * p.K + k], logits[(below + right) * p.K + k]);
      let firstColumn = firstAt(left, p.width, p.columns);
      let lastColumn = firstAt(left + 1u, p.width, p.columns);
      for (var i = firstAt(top, p.height, p.rows); i < lastRow; i++) {
        let down = shareOf(i, top, p.height, p.rows);
        var across = 0.0;
        for (var j = firstColumn; j < lastColumn; j++) {
          let pixel = (picture * p.height + i) * p.width + j;
          let label = labels[pixel];
          if (label >= p.K) { continue; }
          let share = shareOf(j, left, p.width, p.columns);
          let score = mix(mix(upper.x, upper.y, share), mix(lower.x, lower.y, share), down);
          let found = statistics[pixel];
          let slope = exp(score - found.x - found.y) - f32(label == k);
          across += weightOf(column, left, right, share) * (slope * gradient[pixel]);
        }
        sum += weightOf(row, top, bottom, down) * across;
      }
    }
  }
  dx[id] = sum;`,
    })];
  },
});
