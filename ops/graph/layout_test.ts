import assert from "node:assert/strict";
import { numbers } from "../_test_kit.ts";
import {
  broadcastLayout,
  commonSizes,
  composed,
  joined,
  type Layout,
  stridesAlong,
  stridesOf,
} from "./layout.ts";
import { type Shape, sizeOf } from "./shape.ts";

/** Integers from 0 below a limit, the same for each seed. */
const integers = (seed: number) => {
  const values = numbers(200, seed);
  let next = 0;
  return (limit: number) => Math.floor((values[next++ % values.length] + 1) / 2 * limit);
};

const shapeFrom = (integer: (limit: number) => number, most = 4): Shape =>
  Array.from({ length: 1 + integer(most) }, () => [1, 2, 3, 4, 6][integer(5)]);

/** The index that a layout reaches for each running index: the definition, by division. */
const indicesOf = (layout: Layout, total: number): number[] =>
  Array.from({ length: total }, (_, i) => {
    let [rest, index] = [i, 0];
    for (const { size, stride } of layout) {
      index += rest % size * stride;
      rest = Math.floor(rest / size);
    }
    return index;
  });

/** The index of each element of the shape `to` in the shape `from` that is broadcast to it, by coordinates. */
const broadcastIndices = (from: Shape, to: Shape): number[] =>
  Array.from({ length: sizeOf(to) }, (_, i) => {
    const coordinates = to.map((size, axis) => Math.floor(i / sizeOf(to.slice(axis + 1))) % size);
    const own = coordinates.slice(to.length - from.length).map((c, axis) => from[axis] === 1 ? 0 : c);
    return own.reduce((index, c, axis) => index * from[axis] + c, 0);
  });

/** A shape that broadcasts to `to`. */
const narrowed = (to: Shape, integer: (limit: number) => number): Shape =>
  to.slice(integer(to.length + 1)).map((size) => integer(2) === 0 ? 1 : size);

Deno.test("broadcastLayout() reaches the elements that NumPy's rule names", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const integer = integers(seed);
    const to = shapeFrom(integer);
    const from = narrowed(to, integer);
    const got = indicesOf(broadcastLayout(from, to), sizeOf(to));
    assert.deepEqual(got, broadcastIndices(from, to), `[${from}] to [${to}]`);
  }
});

Deno.test("joined() keeps the order, and leaves no axis of size 1 and no two that one stride can express", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const integer = integers(seed);
    const shape = shapeFrom(integer);
    const strides = stridesOf(shape);
    const layout = shape.map((size, axis) => ({ size, stride: integer(3) === 0 ? 0 : strides[axis] }))
      .reverse();
    const got = joined(layout);
    assert.deepEqual(indicesOf(got, sizeOf(shape)), indicesOf(layout, sizeOf(shape)), `[${shape}]`);
    got.forEach(({ size, stride }, i) => {
      assert.ok(size > 1 && (i === 0 || stride !== got[i - 1].stride * got[i - 1].size));
    });
  }
});

/** Composes two layouts and fails where the result reaches other elements; false where strides cannot express it. */
const composes = (outer: Layout, inner: Layout, what: string): boolean => {
  const layout = composed(outer, inner);
  if (layout === null) return false;
  const total = sizeOf(outer.map(({ size }) => size));
  const through = indicesOf(inner, sizeOf(inner.map(({ size }) => size)));
  assert.deepEqual(indicesOf(layout, total), indicesOf(outer, total).map((i) => through[i]), what);
  return true;
};

Deno.test("composed() reaches what one layout reaches through the other", () => {
  let expressed = 0;
  for (let seed = 1; seed <= 500; seed++) {
    const integer = integers(seed);
    // x is broadcast to a shape, reshaped to another one (the same sizes in another order), and broadcast again.
    const inner = shapeFrom(integer, 3);
    const middle = integer(2) === 0 ? inner : inner.toReversed();
    const [from, to] = [narrowed(inner, integer), [...shapeFrom(integer, 1), ...middle]];
    const what = `[${from}] to [${inner}], as [${middle}] to [${to}]`;
    if (composes(broadcastLayout(middle, to), broadcastLayout(from, inner), what)) expressed++;
  }
  assert.ok(expressed > 250, `${expressed} of 500`);
});

Deno.test("composed() reaches a slice of a transposition of any layout, or says that strides cannot", () => {
  let [expressed, refused] = [0, 0];
  for (let seed = 1; seed <= 2000; seed++) {
    const integer = integers(seed);
    // Axes of any strides, reshaped to other axes, of which some elements are read in another order.
    const sizes = shapeFrom(integer, 3);
    const inner = joined(sizes.map((size) => ({ size, stride: [0, 1, 5, 7, 30][integer(5)] })));
    const shape = [sizes.toReversed(), sizes, [sizeOf(sizes.slice(1)), sizes[0]]][integer(3)];
    const strides = stridesOf(shape);
    const axes = shape.map((size, axis) => ({ size: 1 + integer(size), stride: strides[axis] }));
    const outer = joined(integer(2) === 0 ? axes : [...axes.slice(1), { size: 2, stride: 0 }, axes[0]]);
    if (composes(outer, inner, `${JSON.stringify(outer)} through ${JSON.stringify(inner)}`)) expressed++;
    else refused++;
  }
  assert.ok(expressed > 1000 && refused > 200, `${expressed} expressed, ${refused} refused`);
});

Deno.test("commonSizes() and stridesAlong() cut layouts into axes of one stride each", () => {
  let cut = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const integer = integers(seed);
    const to = shapeFrom(integer);
    const total = sizeOf(to);
    const layouts = [1, 2, 3].map(() => broadcastLayout(narrowed(to, integer), to));
    const cuts = [sizeOf(to.slice(integer(to.length)))];
    const sizes = commonSizes(layouts, total, cuts);
    if (sizes === null) continue;
    cut++;
    assert.equal(sizeOf(sizes), total);
    const ends = sizes.map((_, i) => sizeOf(sizes.slice(0, i + 1)));
    assert.ok(cuts.every((end) => end === 1 || ends.includes(end)), `[${sizes}] does not end at ${cuts}`);
    for (const layout of layouts) {
      const strides = stridesAlong(layout, sizes);
      const axes: Layout = sizes.map((size, i) => ({ size, stride: strides[i] }));
      assert.deepEqual(indicesOf(axes, total), indicesOf(layout, total), `[${to}] cut into [${sizes}]`);
    }
  }
  assert.equal(cut, 300); // broadcasts to one shape always have common sizes
  assert.equal(commonSizes([[{ size: 4, stride: 1 }], [{ size: 6, stride: 1 }]], 24), null);
});
