/** Solarisation. */
import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { checkedImages, pixelFunctions } from "./_pixel.ts";
import { AUGMENTATION_ROW } from "./augmentation_row.ts";

/**
 * Inverts the values from each view's threshold on: v < threshold ? v : 255 − v.
 *
 * images: u32 [N, S, S]; views: u32 [N, words]. Result: u32 [N, S, S]. Throws ShapeError where these do not fit.
 */
export const solarize = (images: Tensor, views: Tensor): Tensor => solarizeOp([images, views]);

const solarizeOp = defineOp("solarize", {
  takes: ["u32", "u32"],
  shape: ([images, views]) => checkedImages("solarize", images, views),
  dtype: "u32",
  kernels: ({ inputs: [images, views], output }) => {
    const [count, size] = images.shape;
    return [kernel({
      label: "solarize",
      reads: { pictures: images, views },
      writes: { solarized: output },
      sizes: { size, words: views.shape[1] },
      threads: count * size,
      functions: pixelFunctions,
      // One invocation per column.
      main: /* wgsl */ `
  let view = id / p.size;
  let threshold = vec3(views[view * p.words + ${AUGMENTATION_ROW.solarize}u]);
  for (var y = 0u; y < p.size; y++) {
    let at = (view * p.size + y) * p.size + id % p.size;
    let rgb = unpack(pictures[at]);
    solarized[at] = pack(select(rgb, vec3(255u) - rgb, rgb >= threshold));
  }`,
    })];
  },
});
