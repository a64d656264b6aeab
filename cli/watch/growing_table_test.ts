import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../../data/_test_kit.ts";
import { growingTable } from "./growing_table.ts";

const append = (file: string, text: string) => Deno.writeTextFile(file, text, { append: true });

Deno.test(
  "growingTable() reads only whole lines, each once, as a file grows in pieces of any size",
  inTestFolder(async (folder) => {
    const file = join(folder, "metrics.jsonl");
    const table = growingTable(file);
    await table.poll(); // there is no file yet
    assert.equal(table.table().rows, 0);

    const lines = Array.from({ length: 40 }, (_, step) => ({ step, loss: 1 / (step + 1), "größe": step }));
    const bytes = new TextEncoder().encode(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    for (let at = 0; at < bytes.length; at += 37) { // cuts through numbers, names and a letter of two bytes
      await Deno.writeFile(file, bytes.subarray(at, at + 37), { append: true });
      await table.poll();
      const written = bytes.subarray(0, at + 37).filter((byte) => byte === 10).length;
      assert.equal(table.table().rows, written);
    }
    const { steps, columns } = table.table();
    assert.deepEqual([...steps], lines.map(({ step }) => step));
    assert.deepEqual([...columns.get("loss")!.subarray(0, 40)], lines.map(({ loss }) => loss));
    assert.deepEqual([...columns.get("größe")!.subarray(0, 40)], lines.map(({ step }) => step));
    const version = table.version();
    await table.poll();
    assert.equal(table.version(), version);
  }),
);

Deno.test(
  "growingTable() starts again with another file in the same place, and lets a repeated step replace what follows it",
  inTestFolder(async (folder) => {
    const file = join(folder, "metrics.jsonl");
    const table = growingTable(file);
    const read = async () => {
      await table.poll();
      const { rows, steps, columns } = table.table();
      return [...steps].map((step, i) => [step, columns.get("loss")!.subarray(0, rows)[i]]);
    };
    await append(file, '{"step":0,"loss":5}\n{"step":1,"loss":4}\n{"step":2,"loss":3,"extra":7}\n');
    assert.deepEqual(await read(), [[0, 5], [1, 4], [2, 3]]);
    await append(file, 'no JSON\nnull\n{"loss":9}\n{"step":1,"loss":40}\n');
    assert.deepEqual(await read(), [[0, 5], [1, 40]]);
    await append(file, '{"step":2,"loss":30,"host":{"decode":2}}\n');
    await table.poll();
    assert.ok(Number.isNaN(table.table().columns.get("extra")![2]));
    assert.equal(table.table().columns.get("host.decode")![2], 2);

    await Deno.writeTextFile(
      `${file}.partial`,
      '{"step":0,"loss":1}\n{"step":7,"loss":2}\n'.padEnd(400, "\n"),
    );
    await Deno.rename(`${file}.partial`, file);
    assert.deepEqual(await read(), [[0, 1], [7, 2]]);
  }),
);
