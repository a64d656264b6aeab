/**
 * How an expression walks through a tensor: sizes and strides from the fastest axis to the slowest.
 *
 * All tensors of a fused kernel are walked by one running index, so broadcasting, slicing, transposing and reshaping
 * are only different strides. A stride of 0 repeats the same element.
 */
import { type Shape, sizeOf } from "./shape.ts";

/** An op whose input is read at other places than its output's own: a slice or a transposition. */
export interface Access {
  readonly layout: Layout;
  readonly offset: number;
}

export interface Axis {
  readonly size: number;
  readonly stride: number;
}
export type Layout = readonly Axis[];

/** Drops axes of size 1 and joins neighbours that are walked as one. */
export const joined = (layout: Layout): Layout => {
  const out: Axis[] = [];
  for (const axis of layout) {
    const last = out[out.length - 1];
    if (axis.size === 1) continue;
    if (last !== undefined && axis.stride === last.stride * last.size) {
      out[out.length - 1] = { size: last.size * axis.size, stride: last.stride };
    } else out.push(axis);
  }
  return out;
};

/** Strides of a row-major tensor, slowest axis first, as its shape. */
export const stridesOf = (shape: Shape): number[] => shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));

/** A tensor of shape `from` walked in the order of the shape `to` that it is broadcast to. */
export const broadcastLayout = (from: Shape, to: Shape): Layout => {
  const strides = stridesOf(from);
  const axes = to.map((size, axis) => {
    const own = axis - to.length + from.length;
    return { size, stride: own < 0 || (from[own] === 1 && size !== 1) ? 0 : strides[own] };
  });
  return joined(axes.reverse());
};

/** `inner`, walked in the order in which `outer` walks the result of `inner`; null if that needs more than strides. */
export const composed = (outer: Layout, inner: Layout): Layout | null => {
  const out: Axis[] = [];
  for (const { size, stride } of outer) {
    if (stride === 0) {
      out.push({ size, stride: 0 });
      continue;
    }
    let skip = stride;
    let left = size;
    for (const axis of inner) {
      if (left === 1) break;
      if (skip >= axis.size) {
        if (skip % axis.size !== 0) return null;
        skip /= axis.size;
        continue;
      }
      if (axis.size % skip !== 0) return null;
      const taken = Math.min(left, axis.size / skip);
      if (left % taken !== 0) return null;
      out.push({ size: taken, stride: axis.stride * skip });
      left /= taken;
      skip = 1;
    }
    if (left !== 1) return null;
  }
  return joined(out);
};

/** Sizes, fastest first, into which all layouts can be cut so that each has one stride an axis; null if none exist. */
export const commonSizes = (
  layouts: readonly Layout[],
  total: number,
  cuts: readonly number[] = [],
): number[] | null => {
  const ends = new Set<number>([1, total, ...cuts]);
  for (const layout of layouts) {
    let end = 1;
    for (const axis of layout) ends.add(end *= axis.size);
  }
  const sorted = [...ends].sort((a, b) => a - b);
  const sizes: number[] = [];
  for (let i = 1; i < sorted.length; i++) {
    if (sorted[i] % sorted[i - 1] !== 0) return null;
    sizes.push(sorted[i] / sorted[i - 1]);
  }
  return sizes;
};

/** The stride of a layout along each of the `sizes` that `commonSizes` gave. */
export const stridesAlong = (layout: Layout, sizes: readonly number[]): number[] => {
  const strides: number[] = [];
  let axis = 0;
  let within = 1;
  for (const size of sizes) {
    const current = layout[axis];
    strides.push(current === undefined ? 0 : current.stride * within);
    within *= size;
    if (current !== undefined && within >= current.size) {
      axis += 1;
      within = 1;
    }
  }
  return strides;
};
