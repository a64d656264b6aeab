/** Gaussian blur. */
import type { Operand } from "../graph/kernel.ts";
import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { checkedImages, pixelFunctions } from "./_pixel.ts";
import { AUGMENTATION_ROW } from "./augmentation_row.ts";

/**
 * Each view's Gaussian blur as by Pillow, bit for bit: three box blurs along the rows, then three along the columns,
 * each rounded to 8 bits. The border is extended by its outermost pixel.
 *
 * images: u32 [N, S, S]; views: u32 [N, words]. Result: u32 [N, S, S]. Throws ShapeError where these do not fit.
 */
export const gaussianBlur = (images: Tensor, views: Tensor): Tensor => gaussianBlurOp([images, views]);

const gaussianBlurOp = defineOp("gaussianBlur", {
  takes: ["u32", "u32"],
  shape: ([images, views]) => checkedImages("gaussianBlur", images, views),
  dtype: "u32",
  kernels: ({ inputs: [images, views], output, scratch }) => {
    const size = images.shape[1];
    const rowsBlurred = scratch(images.shape, "u32");
    return [
      blurLines(images, views, rowsBlurred, { step: 1, line: size }),
      blurLines(rowsBlurred, views, output, { step: size, line: 1 }),
    ];
  },
});

/**
 * Blurs lines, one per invocation: `step` is the distance of neighbours on a line, `line` that of neighbouring lines.
 */
const blurLines = (
  images: Operand,
  views: Operand,
  output: Operand,
  { step, line }: { step: number; line: number },
) => {
  const [count, size] = images.shape;
  return kernel({
    label: "gaussianBlur",
    reads: { pictures: images, views },
    writes: { blurred: output },
    sizes: { step, line, words: views.shape[1] },
    threads: count * size,
    functions: /* wgsl */ `${pixelFunctions}
const LAST = ${size - 1};`,
    main: /* wgsl */ `
  let view = id / ${size}u;
  let start = view * ${size * size}u + id % ${size}u * p.line;
  let table = view * p.words;
  let radius = i32(views[table + ${AUGMENTATION_ROW.blurRadius}u]);
  let inner = views[table + ${AUGMENTATION_ROW.blurInner}u];
  let outer = views[table + ${AUGMENTATION_ROW.blurOuter}u];
  if (inner == 1u << 24u) {
    for (var i = 0u; i < ${size}u; i++) { blurred[start + i * p.step] = pictures[start + i * p.step]; }
    return;
  }
  var lines: array<array<u32, ${size}>, 2>;
  for (var i = 0u; i < ${size}u; i++) { lines[0][i] = pictures[start + i * p.step]; }
  for (var blur = 0u; blur < 3u; blur++) {
    let current = blur % 2u;
    var sum = vec3(0u);
    for (var i = -radius; i <= radius; i++) { sum += unpack(lines[current][clamp(i, 0, LAST)]); }
    for (var i = 0; i <= LAST; i++) {
      let left = unpack(lines[current][max(i - radius - 1, 0)]);
      let right = unpack(lines[current][min(i + radius + 1, LAST)]);
      let mean = pack((sum * inner + (left + right) * outer + vec3(1u << 23u)) >> vec3(24u));
      if (blur < 2u) { lines[1u - current][i] = mean; } else { blurred[start + u32(i) * p.step] = mean; }
      sum += right - unpack(lines[current][max(i - radius, 0)]);
    }
  }`,
  });
};
