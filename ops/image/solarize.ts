import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { checkPictures, pixelFunctions } from "./_pixel.ts";
import { AUGMENTATION_ROW } from "./augmentation_row.ts";

/**
 * Inverts the values from the view's threshold on: v < threshold ? v : 255 − v.
 *
 * pictures: u32 [N, S, S]; views: u32 [N, words]. Result: u32 [N, S, S].
 */
export const solarize = (pictures: Tensor, views: Tensor): Tensor => solarizeOp([pictures, views]);

const solarizeOp = defineOp("solarize", {
  shape: ([pictures, views]) => checkPictures("solarize", pictures, views),
  dtype: "u32",
  kernels: ({ inputs: [pictures, views], output }) => {
    const [count, size] = pictures.shape;
    return [kernel({
      label: "solarize",
      reads: { pictures, views },
      writes: { solarized: output },
      sizes: { size, words: views.shape[1] },
      threads: count * size,
      functions: pixelFunctions,
      // One lane a column.
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
