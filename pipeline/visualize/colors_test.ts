import assert from "node:assert/strict";
import { distinctColors } from "./colors.ts";

Deno.test("distinctColors() gives colours that differ, and the first ones by much", () => {
  const distance = (a: readonly number[], b: readonly number[]) => Math.hypot(...a.map((v, c) => v - b[c]));
  const nearest = (count: number) => {
    const colors = distinctColors(count);
    return Math.min(...colors.flatMap((a, i) => colors.slice(0, i).map((b) => distance(a, b))));
  };
  assert.ok(nearest(64) > 0, `${nearest(64)}`);
  assert.ok(nearest(7) > 80, `${nearest(7)}`);
});
