import assert from "node:assert/strict";
import { colorClusters } from "./color_clusters.ts";

Deno.test("colorClusters() puts pixels of like colour into one cluster across pictures", () => {
  const [red, blue] = [[200, 20, 20], [20, 20, 200]];
  const picture = (left: number[], right: number[]) => {
    const rgb = Uint8Array.from({ length: 32 * 32 }, (_, i) => i % 32 < 16 ? 0 : 1).reduce<number[]>(
      (all, side) => [...all, ...(side === 0 ? left : right)],
      [],
    );
    return { width: 32, height: 32, rgb: Uint8Array.from(rgb) };
  };
  const [first, second] = colorClusters([picture(red, blue), picture(blue, red)], { clusters: 2, seed: 1 });
  const [ofRed, ofBlue] = [first[0], first[31]];
  assert.notEqual(ofRed, ofBlue);
  first.forEach((cluster, i) => assert.equal(cluster, i % 32 < 16 ? ofRed : ofBlue));
  second.forEach((cluster, i) => assert.equal(cluster, i % 32 < 16 ? ofBlue : ofRed));
});
