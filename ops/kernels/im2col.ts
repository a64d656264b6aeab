/** im2col into packed panels, for convolutions as GEMMs. */
import type { Kernel, Operand } from "../graph/kernel.ts";
import type { Convolution } from "./convolution.ts";
import { PANEL_ROWS, transposedRow } from "./packing.ts";
import { kernel, lines, vectors } from "./wgsl.ts";

/**
 * im2col of some `images` of x [N, H, W, C] into packed panels y: one row for each output pixel [OH, OW], whose columns
 * are (tap, channel). The numbers of rows and channels are multiples of 4.
 */
export const im2colPacked = (
  x: Operand,
  y: Operand,
  images: { readonly first: number; readonly count: number },
  [KH, KW]: readonly number[],
  [OH, OW]: readonly number[],
  { stride, pad, dilation }: Convolution,
): Kernel => {
  const [, H, W, C] = x.shape;
  const R = images.count * OH * OW / 4;
  const each = C % 16 === 0 ? 4 : 1; // vectors of channels per invocation: neighbours share a cache line
  const across = C / 4 / each;
  const taps = KH * KW;
  return kernel({
    label: "patches",
    reads: { x: vectors(x) },
    writes: { y: vectors(y) },
    sizes: {
      first: images.first,
      R,
      H,
      W,
      C: C / 4,
      KW,
      taps,
      OH,
      OW,
      stride,
      pad,
      dilation,
      across,
      each,
    },
    threads: R * taps * across,
    main: `
  let r = id % p.R;
  let first = id / p.R % p.across * p.each;
  let tap = id / p.R / p.across;
  ${
      lines(4, (i) => `
  let m${i} = r * 4u + ${i}u;
  let iy${i} = m${i} / p.OW % p.OH * p.stride + tap / p.KW * p.dilation - p.pad; // above the picture wraps round
  let ix${i} = m${i} % p.OW * p.stride + tap % p.KW * p.dilation - p.pad;
  let inside${i} = iy${i} < p.H && ix${i} < p.W;
  let at${i} = select(0u, (((p.first + m${i} / p.OW / p.OH) * p.H + iy${i}) * p.W + ix${i}) * p.C, inside${i});`)
    }
  let y_at = (r / ${PANEL_ROWS / 4}u * p.taps + tap) * p.C * ${PANEL_ROWS}u + r % ${PANEL_ROWS / 4}u;
  for (var c = first; c < first + p.each; c++) {
    ${lines(4, (i) => `let r${i} = select(vec4<f32>(0.0), x[at${i} + c], inside${i});`)}
    ${lines(4, (j) => `y[y_at + (c * 4u + ${j}u) * ${PANEL_ROWS / 4}u] = ${transposedRow(j)};`)}
  }`,
  });
};
