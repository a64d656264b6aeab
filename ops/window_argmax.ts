/**
 * The class of every pixel of an image from the scores of windows of it. Each window's scores are enlarged to the window,
 * averaged over the windows that cover a pixel, and resized once more to the image's original size. Only the classes are
 * stored: the enlarged scores would be K times the image.
 */
import { type Shape, shapeError } from "./graph/shape.ts";
import { constant, defineOp, type Tensor } from "./graph/tensor.ts";
import { bilinearFunctions, requireResizing } from "./kernels/bilinear.ts";
import { kernel } from "./kernels/wgsl.ts";

/** Height and width in pixels. */
export type PixelSize = readonly [height: number, width: number];

/** Where windows are in an image, and which pixels of its original size are asked for. */
export interface WindowLayout {
  /** Top and left edge of each window. Together they cover the image. */
  readonly windows: readonly (readonly [top: number, left: number])[];
  /** Size of the windows. */
  readonly window: PixelSize;
  /** Size of the image that the windows cover. */
  readonly image: PixelSize;
  /** Size to which the averaged scores are resized. */
  readonly original: PixelSize;
  /** Rows of that size that are computed. */
  readonly rows: number;
  /** How both resizings place pixels, see `Resizing`. */
  readonly alignCorners: boolean;
}

/**
 * logits [windows, h, w, K] and `first` [1] (u32), the first row asked for, to u32 [rows, original width]: the class with
 * the highest score, the first of equals. Rows beyond the last repeat it. No gradient. Throws ShapeError.
 */
export const windowArgmax = (logits: Tensor, first: Tensor, layout: WindowLayout): Tensor =>
  windowArgmaxOp([logits, first, constant(Uint32Array.from(layout.windows.flat()))], layout);

const requireCovered = (logits: Shape, { windows, window, image, original }: WindowLayout): void => {
  requireResizing("windowArgmax", logits, { height: window[0], width: window[1] });
  requireResizing("windowArgmax", [1, ...image, 1], { height: original[0], width: original[1] });
  if (logits[0] !== windows.length) shapeError("windowArgmax", `logits of ${windows.length} windows`, logits);
};

const windowArgmaxOp = defineOp<WindowLayout>("windowArgmax", {
  dtype: "u32",
  takes: ["f32", "u32", "u32"],
  shape: ([logits], layout) => {
    requireCovered(logits.shape, layout);
    return [layout.rows, layout.original[1]];
  },
  kernels: ({ inputs: [logits, first, origins], output, attributes }) => {
    const { windows, window, image, original, rows, alignCorners } = attributes;
    const [, h, w, K] = logits.shape;
    return [kernel({
      label: "windowArgmax",
      reads: { logits, first, origins },
      writes: { best: output },
      sizes: {
        ...{ h, w, K, windows: windows.length, windowHeight: window[0], windowWidth: window[1] },
        ...{ height: image[0], width: image[1], originalHeight: original[0], originalWidth: original[1] },
      },
      threads: rows * original[1],
      functions: /* wgsl */ `${bilinearFunctions(alignCorners)}
fn scoresAt(cell: u32, classes: vec4<u32>) -> vec4<f32> {
  let at = cell * p.K + classes;
  return vec4(logits[at.x], logits[at.y], logits[at.z], logits[at.w]);
}
// The average over the windows that cover a pixel of the image; above or left of a window the u32 wraps around.
fn averaged(y: u32, x: u32, classes: vec4<u32>) -> vec4<f32> {
  var sum = vec4(0.0);
  var count = 0.0;
  for (var n = 0u; n < p.windows; n++) {
    let row = y - origins[2u * n];
    let column = x - origins[2u * n + 1u];
    if (row >= p.windowHeight || column >= p.windowWidth) { continue; }
    let down = between(row, p.windowHeight, p.h);
    let across = between(column, p.windowWidth, p.w);
    let top = (n * p.h + down.low) * p.w;
    let bottom = (n * p.h + down.high) * p.w;
    let above = mix(scoresAt(top + across.low, classes), scoresAt(top + across.high, classes), across.share);
    let below = mix(scoresAt(bottom + across.low, classes), scoresAt(bottom + across.high, classes), across.share);
    sum += mix(above, below, down.share);
    count += 1.0;
  }
  return sum / count;
}`,
      main: /* wgsl */ `
  let down = between(min(first[0] + id / p.originalWidth, p.originalHeight - 1u), p.originalHeight, p.height);
  let across = between(id % p.originalWidth, p.originalWidth, p.width);
  var most = -3.4028234e38;
  var winner = 0u;
  for (var k = 0u; k < p.K; k += 4u) {
    let classes = min(vec4(k) + vec4(0u, 1u, 2u, 3u), vec4(p.K - 1u)); // repeats of the last class do not win
    let above = mix(averaged(down.low, across.low, classes), averaged(down.low, across.high, classes), across.share);
    let below = mix(averaged(down.high, across.low, classes), averaged(down.high, across.high, classes), across.share);
    let scores = mix(above, below, down.share);
    for (var i = 0u; i < 4u; i++) {
      if (scores[i] > most) { most = scores[i]; winner = classes[i]; }
    }
  }
  best[id] = winner;`,
    })];
  },
});
