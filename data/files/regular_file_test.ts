import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder, shell } from "../_test_kit.ts";
import { openBytes } from "./byte_source.ts";
import { readRegularFile } from "./regular_file.ts";

Deno.test(
  "readRegularFile() and openBytes() name pipes, devices and folders, and wait for none",
  inTestFolder(async (folder) => {
    const path = (name: string) => join(folder, name);
    await shell('mkfifo "$0"', [path("pipe")]).output();
    Deno.symlinkSync("/dev/zero", path("zero"));
    const cases = [["pipe", /it is a named pipe, not a file/], ["zero", /it is a device, not a file/], [
      ".",
      /it is a folder/,
    ]] as const;
    for (const [name, words] of cases) {
      await assert.rejects(readRegularFile(path(name), { largest: 10 }), words);
      const { message } = await Effect.runPromise(Effect.flip(Effect.scoped(openBytes(path(name)))));
      assert.match(message, words);
    }
  }),
);

Deno.test(
  "readRegularFile() reads files of any size up to the largest, and looks at the beginning of large ones first",
  inTestFolder(async (folder) => {
    const file = join(folder, "file");
    for (const size of [0, 1, 2 ** 18, 2 ** 18 + 1, 1_000_003]) {
      const bytes = Uint8Array.from({ length: size }, (_, i) => i * 7 + (i >> 8));
      Deno.writeFileSync(file, bytes);
      assert.deepEqual(await readRegularFile(file, { largest: size }), bytes);
      if (size > 0) {
        await assert.rejects(readRegularFile(file, { largest: size - 1 }), /at most/);
      }
      const refuse = (beginning: Uint8Array) => beginning[1] === 7 && beginning.length === 4096 ? "no" : null;
      const read = readRegularFile(file, { largest: size, refuse });
      await (size > 2 ** 18 ? assert.rejects(read, /^Error: no$/) : read);
    }
    await assert.rejects(
      readRegularFile(`${file}s`, { largest: 1 }),
      /cannot be read \(No such file or directory/,
    );
  }),
);
