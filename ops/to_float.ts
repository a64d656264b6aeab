/** Conversion of whole numbers. */
import { sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/** u32 to f32, of the same shape; exact below 2^24. No gradient. */
export const toFloat = (x: Tensor): Tensor => toFloatOp([x], undefined);

const toFloatOp = defineOp("toFloat", {
  takes: ["u32"],
  shape: ([x]) => x.shape,
  kernels: ({ inputs: [x], output }) => [kernel({
    label: "toFloat",
    reads: { x },
    writes: { y: output },
    threads: sizeOf(output.shape),
    main: "y[id] = f32(x[id]);",
  })],
});
