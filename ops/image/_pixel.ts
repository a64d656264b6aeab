/**
 * Pictures on the device: u32 tensors [N, S, S], a pixel a word, r | g << 8 | b << 16. Between any two operations a
 * picture is rounded to 8 bits, as Pillow does, so each op is exact in itself.
 */
import { sameShape, shapeError } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

/** WGSL functions between a pixel's word and its three values 0 … 255. */
export const pixelFunctions = /* wgsl */ `
fn unpack(pixel: u32) -> vec3<u32> { return vec3(pixel, pixel >> 8u, pixel >> 16u) & vec3(255u); }
fn pack(rgb: vec3<u32>) -> u32 { return rgb.r | (rgb.g << 8u) | (rgb.b << 16u); }`;

/** Refuses what is not a stack of square pictures [N, S, S] with a view table [N, words]. */
export const checkPictures = (op: string, pictures: Tensor, views: Tensor) => {
  const [count, size] = pictures.shape;
  if (
    !sameShape(pictures.shape, [count, size, size]) || views.shape[0] !== count || views.shape.length !== 2
  ) {
    shapeError(op, "pictures [N, S, S] and a view table [N, words]", pictures.shape, views.shape);
  }
  return pictures.shape;
};
