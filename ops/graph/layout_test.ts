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

Deno.test("composed() reaches what one layout reaches through the other, or says that strides cannot", () => {
  let expressed = 0;
  for (let seed = 1; seed <= 1000; seed++) {
    const integer = integers(seed);
    // x is broadcast to a shape, reshaped to another one (its factors in another order), and broadcast again.
    const inner = shapeFrom(integer, 3);
    const middle = integer(2) === 0 ? inner : [...inner].sort(() => integer(3) - 1);
    const from = narrowed(inner, integer);
    const to = [...shapeFrom(integer, 1), ...middle];
    const first = broadcastLayout(from, inner), second = broadcastLayout(middle, to);
    const layout = composed(second, first);
    if (layout === null) continue;
    expressed++;
    const through = indicesOf(first, sizeOf(inner));
    assert.deepEqual(
      indicesOf(layout, sizeOf(to)),
      indicesOf(second, sizeOf(to)).map((i) => through[i]),
      `[${from}] to [${inner}], as [${middle}] to [${to}]`,
    );
  }
  assert.ok(expressed > 500, `${expressed} of 1000`);
  // Rows of 4 over runs of 6 that are repeated: no stride describes that.
  const repeated = [{ size: 6, stride: 1 }, { size: 2, stride: 0 }];
  assert.equal(composed([{ size: 4, stride: 1 }, { size: 3, stride: 4 }], repeated), null);
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
