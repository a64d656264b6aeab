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
import type { Kernel, Operand } from "./graph/kernel.ts";
import { shapeError, sizeOf } from "./graph/shape.ts";
import { defineOp, imageSlices, reshape, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing } from "./kernels/bilinear.ts";
import { kernel, lines, range, vectors } from "./kernels/wgsl.ts";
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
  kernels: ({ inputs: [logits, labels], output, attributes: { alignCorners } }) => {
    const [, rows, columns, K] = logits.shape;
    const [N, height, width] = labels.shape;
    const blocks = Math.ceil(mostBetween(width, columns, alignCorners) / 8);
    return [kernel({
      label: "enlargedStatistics",
      reads: { logits, labels },
      writes: { statistics: vectors(output) },
      sizes: { rows, columns, K, height, width, blocks },
      threads: N * blocks * columns * height,
      functions: bilinearFunctions(alignCorners),
      // An invocation has up to eight pixels of a row between the same two columns of cells.
      main: /* wgsl */ `
  let i = id % p.height;
  let left = id / p.height % p.columns;
  let image = id / p.height / p.columns / p.blocks;
  let first = firstAt(left, p.width, p.columns) + id / p.height / p.columns % p.blocks * 8u;
  let end = firstAt(left + 1u, p.width, p.columns);
  if (first >= end) { return; }
  let right = min(left + 1u, p.columns - 1u);
  let down = between(i, p.height, p.rows);
  let top = (image * p.rows + down.low) * p.columns;
  let bottom = (image * p.rows + down.high) * p.columns;
  let start = (image * p.height + i) * p.width;
  ${
        lines(2, (v) => /* wgsl */ `
  let pixels${v} = min(vec4(first + ${4 * v}u) + vec4(0u, 1u, 2u, 3u), vec4(end - 1u));
  let labels${v} = vec4(${range(4).map((c) => `labels[start + pixels${v}[${c}]]`).join(", ")});
  let across${v} = vec4(${
          range(4).map((c) => `shareOf(pixels${v}[${c}], left, p.width, p.columns)`).join(", ")
        });
  var largest${v} = vec4(0.0);
  var sum${v} = vec4(1.0);
  var own${v} = vec4(0.0);
  var best${v} = vec4(0u);`)
      }
  for (var k = 0u; k < p.K; k++) {
    let near = vec4(mix(logits[(top + left) * p.K + k], logits[(bottom + left) * p.K + k], down.share));
    let far = vec4(mix(logits[(top + right) * p.K + k], logits[(bottom + right) * p.K + k], down.share));
    ${
        lines(2, (v) => /* wgsl */ `
    let scores${v} = mix(near, far, across${v});
    own${v} = select(own${v}, scores${v}, labels${v} == vec4(k));
    if (k == 0u) { largest${v} = scores${v}; } else {
      let larger = scores${v} > largest${v};
      let less = exp(-abs(scores${v} - largest${v})); // of the smaller beside the larger
      sum${v} = select(sum${v} + less, sum${v} * less + vec4(1.0), larger);
      largest${v} = select(largest${v}, scores${v}, larger);
      best${v} = select(best${v}, vec4(k), larger);
    }`)
      }
  }
  ${
        lines(2, (v) => /* wgsl */ `
  let logarithms${v} = log(sum${v});
  for (var c = 0u; c < 4u && first + ${4 * v}u + c < end; c++) {
    let found = vec4(largest${v}[c], logarithms${v}[c], logarithms${v}[c] - (own${v}[c] - largest${v}[c]),
      f32(best${v}[c] == labels${v}[c]));
    statistics[start + first + ${
          4 * v
        }u + c] = select(found, vec4(0.0, 0.0, 0.0, -1.0), labels${v}[c] >= p.K);
  }`)
      }`,
    })];
  },
});

/** At least the number of pixels of an axis that lie between the same two cells. */
const mostBetween = (pixels: number, cells: number, alignCorners: boolean): number => {
  if (cells === 1) return pixels;
  // Pixels on the border's side of an outer cell's centre count as beyond it, half a cell's more.
  return Math.ceil(alignCorners ? (pixels - 1) / (cells - 1) : 1.5 * pixels / cells) + 1;
};

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
 * Logits, labels, statistics and the gradient of the losses to the gradient of the logits. Every pixel lies between four
 * cells, of which it has a term for each. The terms are first added up over the pixels between the same four cells, and
 * then over the four such places around a cell: in a fixed order, and each pixel's softmax is computed once.
 */
const enlargedGradient = defineOp<Enlarging>("enlargedCrossEntropyGradient", {
  takes: ["f32", "u32", "f32", "f32"],
  precision: "full",
  shape: ([logits]) => logits.shape,
  slices: imageSlices([0, 1, 2, 3]),
  kernels: ({ inputs, output, attributes, scratch, adapter }) => {
    const [N, rows, columns, K] = output.shape;
    const padded = 4 * Math.ceil(K / 4);
    const bytes = 4 * 4 * rows * columns * padded; // of an image's terms
    const images = Math.max(1, Math.min(N, Math.floor(Math.min(TERM_BYTES, adapter.maxBinding) / bytes)));
    const terms = scratch([images, rows, columns, 4, padded]);
    return range(Math.ceil(N / images)).flatMap((pass) => {
      const part = { first: pass * images, images: Math.min(images, N - pass * images) };
      return [
        termsKernel(inputs, terms, part, attributes, adapter.cpu ? 4 : 1),
        gatherKernel(terms, output, part),
      ];
    });
  },
});

/** Bytes of terms at a time, at most, as long as an image's fit. */
const TERM_BYTES = 2 ** 26;

/** Some of the images of a batch. */
interface Images {
  readonly first: number;
  readonly images: number;
}

/**
 * The sums over the pixels whose upper left cell is [n, row, column], for each of the four cells around them, in the order
 * of reading: [images, rows, columns, 4, K padded to fours]. An invocation has up to `most` times four classes.
 */
const termsKernel = (
  [logits, labels, statistics, gradient]: readonly Operand[],
  terms: Operand,
  { first, images }: Images,
  { alignCorners }: Enlarging,
  most: number,
): Kernel => {
  const [, rows, columns, K] = logits.shape;
  const [, height, width] = labels.shape;
  const fours = Math.ceil(K / 4);
  const each = Math.min(most, fours);
  const parts = Math.ceil(fours / each);
  return kernel({
    label: "enlargedCrossEntropyTerms",
    reads: { logits, labels, statistics: vectors(statistics), gradient },
    writes: { terms: vectors(terms) },
    sizes: { rows, columns, K, height, width, fours, parts, first },
    threads: images * rows * columns * parts,
    functions: `${bilinearFunctions(alignCorners)}
fn scoresOf(cell: u32, k: u32) -> vec4<f32> {
  let at = cell * p.K + min(vec4(k) + vec4(0u, 1u, 2u, 3u), vec4(p.K - 1u));
  return vec4(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
}`,
    main: /* wgsl */ `
  let k = id % p.parts * ${4 * each}u;
  let left = id / p.parts % p.columns;
  let top = id / p.parts / p.columns % p.rows;
  let image = id / p.parts / p.columns / p.rows;
  let right = min(left + 1u, p.columns - 1u);
  let bottom = min(top + 1u, p.rows - 1u);
  let above = ((image + p.first) * p.rows + top) * p.columns;
  let below = ((image + p.first) * p.rows + bottom) * p.columns;
  ${
      lines(each, (i) => /* wgsl */ `
  let class${i} = vec4(k + ${4 * i}u) + vec4(0u, 1u, 2u, 3u);
  let corners${i} = array(scoresOf(above + left, k + ${4 * i}u), scoresOf(above + right, k + ${4 * i}u),
    scoresOf(below + left, k + ${4 * i}u), scoresOf(below + right, k + ${4 * i}u));
  var upperLeft${i} = vec4(0.0);
  var upperRight${i} = vec4(0.0);
  var lowerLeft${i} = vec4(0.0);
  var lowerRight${i} = vec4(0.0);`)
    }
  let firstColumn = firstAt(left, p.width, p.columns);
  let lastColumn = firstAt(left + 1u, p.width, p.columns);
  let lastRow = firstAt(top + 1u, p.height, p.rows);
  for (var i = firstAt(top, p.height, p.rows); i < lastRow; i++) {
    // Where both cells are the same, at the border, all weight is on the first.
    let down = select(shareOf(i, top, p.height, p.rows), 0.0, top == bottom);
    ${
      lines(each, (i) => /* wgsl */ `
    let leftScores${i} = mix(corners${i}[0], corners${i}[2], down);
    let rightScores${i} = mix(corners${i}[1], corners${i}[3], down);
    var toLeft${i} = vec4(0.0);
    var toRight${i} = vec4(0.0);`)
    }
    for (var j = firstColumn; j < lastColumn; j++) {
      let pixel = ((image + p.first) * p.height + i) * p.width + j;
      let label = labels[pixel];
      if (label >= p.K) { continue; }
      let across = select(shareOf(j, left, p.width, p.columns), 0.0, left == right);
      let found = statistics[pixel];
      let slope = gradient[pixel];
      ${
      lines(each, (i) => /* wgsl */ `
      let shares${i} = exp(mix(leftScores${i}, rightScores${i}, across) - found.x - found.y);
      let term${i} = slope * (shares${i} - select(vec4(0.0), vec4(1.0), class${i} == vec4(label)));
      toLeft${i} += (1.0 - across) * term${i};
      toRight${i} += across * term${i};`)
    }
    }
    ${
      lines(each, (i) => /* wgsl */ `
    upperLeft${i} += (1.0 - down) * toLeft${i};
    upperRight${i} += (1.0 - down) * toRight${i};
    lowerLeft${i} += down * toLeft${i};
    lowerRight${i} += down * toRight${i};`)
    }
  }
  let at = id / p.parts * 4u * p.fours + k / 4u;
  ${
      lines(each, (i) => /* wgsl */ `
  if (k / 4u + ${i}u < p.fours) {
    terms[at + ${i}u] = upperLeft${i};
    terms[at + p.fours + ${i}u] = upperRight${i};
    terms[at + 2u * p.fours + ${i}u] = lowerLeft${i};
    terms[at + 3u * p.fours + ${i}u] = lowerRight${i};
  }`)
    }`,
  });
};

/** Adds up, for every cell, the terms of the pixels on its four sides. */
const gatherKernel = (terms: Operand, output: Operand, { first, images }: Images): Kernel => {
  const [, rows, columns, K] = output.shape;
  const each = rows * columns * K;
  return kernel({
    label: "enlargedCrossEntropyGradient",
    reads: { terms },
    writes: { dx: output },
    sizes: { columns, rows, K, padded: terms.shape[4], begin: first * each },
    threads: images * each,
    main: /* wgsl */ `
  let k = id % p.K;
  let cell = id / p.K;
  let column = cell % p.columns;
  let row = cell / p.columns % p.rows;
  let at = 4u * cell * p.padded + k;
  let before = 4u * p.padded; // from a cell to the one before it
  var sum = terms[at];
  if (column > 0u) { sum += terms[at - before + p.padded]; }
  if (row > 0u) { sum += terms[at - p.columns * before + 2u * p.padded]; }
  if (column > 0u && row > 0u) { sum += terms[at - (p.columns + 1u) * before + 3u * p.padded]; }
  dx[p.begin + id] = sum;`,
  });
};
