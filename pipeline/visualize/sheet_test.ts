import assert from "node:assert/strict";
import { Effect } from "effect";
import { decodeImage } from "../../data/images/decode_image.ts";
import { sheet } from "./sheet.ts";

Deno.test("sheet() shows every picture in its row and column, enlarged", async () => {
  const plain = (...color: number[]) => ({
    width: 4,
    height: 4,
    rgb: Uint8Array.from({ length: 48 }, (_, i) => color[i % 3]),
  });
  const rows = [[plain(255, 0, 0), plain(0, 255, 0), plain(0, 0, 255)], [plain(9, 9, 9), plain(99, 9, 9)]];
  const { width, height, rgb } = await Effect.runPromise(
    Effect.flatMap(sheet(rows, 3), (png) => decodeImage(png, "sheet.png")),
  );
  const colors = Map.groupBy(
    Array.from({ length: width * height }, (_, i) => rgb.subarray(3 * i, 3 * i + 3).join()),
    (color) => color,
  );
  for (const { rgb: [red, green, blue] } of rows.flat()) {
    assert.equal(colors.get([red, green, blue].join())?.length, 12 * 12);
  }
  const at = (x: number, y: number) => {
    const i = 3 * (Math.floor(y * height) * width + Math.floor(x * width));
    return rgb.subarray(i, i + 3).join();
  };
  assert.equal(at(1 / 6, 1 / 4), "255,0,0");
  assert.equal(at(5 / 6, 1 / 4), "0,0,255");
  assert.equal(at(3 / 6, 3 / 4), "99,9,9");
  assert.equal(at(5 / 6, 3 / 4), "255,255,255");
});
