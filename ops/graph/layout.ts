/**
 * Strided layouts: in which order an expression reads the elements of a tensor.
 *
 * One running index goes through all tensors of a fused kernel, so broadcasting, slicing, transposing and reshaping are
 * only different strides. A stride of 0 repeats the same element.
 */
import { type Shape, sizeOf } from "./shape.ts";

/** Where an op reads its input: output element i is the input element that `layout` reaches at i, plus `offset`. */
export interface Access {
  /** The order of the elements that it reads. */
  readonly layout: Layout;
  /** Elements before the first one. */
  readonly offset: number;
}

/** One axis of a layout. */
export interface Axis {
  /** Steps along it. */
  readonly size: number;
  /** Elements from one step to the next. */
  readonly stride: number;
}

/** Axes from the fastest to the slowest: the running index counts through the first one first. */
export type Layout = readonly Axis[];

/** The same order with as few axes as possible: without axes of size 1, and neighbours merged where one stride does. */
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

/** Strides of a row-major tensor, in the order of its shape: slowest axis first. */
export const stridesOf = (shape: Shape): number[] => shape.map((_, axis) => sizeOf(shape.slice(axis + 1)));

/** Reads a tensor of shape `from` in the order of the shape `to` that it is broadcast to. */
export const broadcastLayout = (from: Shape, to: Shape): Layout => {
  const strides = stridesOf(from);
  const axes = to.map((size, axis) => {
    const source = axis - to.length + from.length;
    return { size, stride: source < 0 || (from[source] === 1 && size !== 1) ? 0 : strides[source] };
  });
  return joined(axes.reverse());
};

/**
 * The composition of two layouts: element i is the element of `inner` at the index that `outer` reaches at i. Null
 * where strides cannot express it. The axes of `outer` may not overlap, as those of a sliding window do.
 */
export const composed = (outer: Layout, inner: Layout): Layout | null => {
  const out: Axis[] = [];
  for (const { size, stride } of outer) {
    if (stride === 0) {
      out.push({ size, stride: 0 });
      continue;
    }
    let skip = stride;
    let remaining = size;
    for (const axis of inner) {
      if (remaining === 1) break;
      if (skip >= axis.size) {
        if (skip % axis.size !== 0) return null;
        skip /= axis.size;
        continue;
      }
      if (axis.size % skip !== 0) return null;
      const taken = Math.min(remaining, axis.size / skip);
      if (remaining % taken !== 0) return null;
      out.push({ size: taken, stride: axis.stride * skip });
      remaining /= taken;
      skip = 1;
    }
    if (remaining !== 1) return null;
  }
  return joined(out);
};

/**
 * Sizes of axes, fastest first, such that each of the `layouts` has one stride along each of them; they also end at
 * each product in `cuts`. The layouts have `total` elements. Null where no such sizes exist.
 */
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

/** The axes of the iteration space of a fused kernel: columns, rows and groups. */
const FUSED_AXES = 3;

/** Whether one stride along each axis of a fused kernel suffices to read each of the layouts, of `total` elements. */
export const fitsFusedKernel = (layouts: readonly Layout[], total: number): boolean =>
  (commonSizes(layouts, total)?.length ?? Infinity) <= FUSED_AXES;

/** The stride of a layout along each of the `sizes`, a result of `commonSizes`. */
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
