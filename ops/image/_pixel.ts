/**
 * 8-bit images on the device: u32 tensors [N, S, S], one word r | g << 8 | b << 16 per pixel. Every op rounds its
 * result to 8 bits, as Pillow does, so that each can be exact by itself.
 */
import { sameShape, type Shape, shapeError } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";

/** WGSL functions that convert between the word of a pixel and its three values 0 … 255. */
export const pixelFunctions: string = /* wgsl */ `
fn unpack(pixel: u32) -> vec3<u32> { return vec3(pixel, pixel >> 8u, pixel >> 16u) & vec3(255u); }
fn pack(rgb: vec3<u32>) -> u32 { return rgb.r | (rgb.g << 8u) | (rgb.b << 16u); }`;

/** The shape of square images [N, S, S]. Throws ShapeError unless it is one and `views` [N, words] have a row for each. */
export const checkedImages = (op: string, images: Tensor, views: Tensor): Shape => {
  const [count, size] = images.shape;
  if (
    !sameShape(images.shape, [count, size, size]) || views.shape[0] !== count || views.shape.length !== 2
  ) {
    shapeError(op, "pictures [N, S, S] and a view table [N, words]", images.shape, views.shape);
  }
  return images.shape;
};
