import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../_test_kit.ts";
import { writeWholeFile } from "./write_whole_file.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

Deno.test(
  "writeWholeFile() writes all pieces and leaves nothing beside the file",
  inTestFolder(async (folder) => {
    await Effect.runPromise(writeWholeFile(`${folder}/a`, [bytes("one "), bytes(""), bytes("two")]));
    assert.equal(await Deno.readTextFile(`${folder}/a`), "one two");
    assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name), ["a"]);
  }),
);

Deno.test(
  "writeWholeFile() keeps the old file when the new one cannot be written",
  inTestFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a`, "old");
    await Deno.mkdir(`${folder}/a.partial`); // in its way
    const error = await Effect.runPromise(Effect.flip(writeWholeFile(`${folder}/a`, [bytes("new")])));
    assert.ok(error instanceof Error);
    assert.equal(await Deno.readTextFile(`${folder}/a`), "old");
  }),
);
