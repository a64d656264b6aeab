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

Deno.test(
  "growingTable() holds 100,000 steps in bounded memory, with every spike, and reads stretches of them again",
  inTestFolder(async (folder) => {
    const file = join(folder, "metrics.jsonl");
    const loss = (step: number) => step === 77_777 ? 1000 : step % 100;
    const line = (step: number) => `{"step":${step},"loss":${loss(step)},"größe":${-step}}\n`;
    const table = growingTable(file);
    for (let first = 0; first < 100_000; first += 20_000) {
      await append(file, Array.from({ length: 20_000 }, (_, i) => line(first + i)).join(""));
      await table.poll();
      assert.ok(table.numbers() <= 4096 * 10, `${table.numbers()} numbers after ${first + 20_000} steps`);
    }
    const { rows, merged } = table.table();
    assert.ok(rows > 2000 && rows <= 4096);
    assert.equal(Math.max(...merged!.highs.get("loss")!.subarray(0, rows)), 1000);
    assert.equal(table.lastStep(), 99_999);

    const stretch = await table.around(77_700, 77_900, 600);
    const steps = [...stretch.table.steps];
    assert.equal(stretch.table.merged, undefined);
    assert.ok(steps[0] <= 77_700 && steps.at(-1)! >= 77_900 && steps.length < 1000);
    assert.ok(steps.every((step, i) => step === steps[0] + i));
    assert.deepEqual([...stretch.table.columns.get("loss")!.subarray(0, steps.length)], steps.map(loss));
    assert.equal(stretch.before!.merged!.lasts.at(-1), steps[0] - 1);
    assert.ok((await table.around(0, 99_999, 600)).before === undefined); // there are rows enough
  }),
);

Deno.test(
  "growingTable() passes over lines that are too long, too deep or no steps, and says which",
  inTestFolder(async (folder) => {
    const file = join(folder, "metrics.jsonl");
    const table = growingTable(file);
    await append(file, '{"step":0,"loss":3}\n\n{"step":1,"loss":2}\n');
    await table.poll();
    assert.equal(table.problem(), null);
    const long = `{"step":2,"loss":"${"x".repeat(3_000_000)}`;
    for (let at = 0; at < long.length; at += 1_000_000) {
      await append(file, long.slice(at, at + 1_000_000));
      await table.poll();
    }
    assert.match(table.problem()!, /^metrics\.jsonl, line 4: .*64 KiB \(lines left out: 1\)$/);
    await append(
      file,
      `"}\n{"step":3,"loss":1}\n${"[".repeat(50_000)}\n${'{"a":'.repeat(9000)}\n\0\0\n{"step":4,"l`,
    );
    await table.poll();
    assert.deepEqual([...table.table().steps], [0, 1, 3]);
    assert.match(table.problem()!, /line 4: .*\(lines left out: 4\)$/);
    await append(file, 'oss":0}\n');
    await table.poll();
    assert.deepEqual([table.lastStep(), table.latest()], [4, { loss: 0 }]);
  }),
);
