/** Labels that are stored beside the colours of a pixel. */
import { sizeOf } from "../graph/shape.ts";
import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";

/** The labels of pixels r | g << 8 | b << 16 | label << 24: u32 to u32, of the same shape. */
export const labelBytes = (pixels: Tensor): Tensor => labelBytesOp([pixels], undefined);

const labelBytesOp = defineOp("labelBytes", {
  takes: ["u32"],
  dtype: "u32",
  shape: ([pixels]) => pixels.shape,
  slices: () => ({ along: [0], output: "rows" }),
  kernels: ({ inputs: [pixels], output }) => [kernel({
    label: "labelBytes",
    reads: { pixels },
    writes: { labels: output },
    threads: sizeOf(output.shape),
    main: "labels[id] = pixels[id] >> 24u;",
  })],
});
