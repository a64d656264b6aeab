import assert from "node:assert/strict";
import { Effect } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { makeDumpFolder, writeDump } from "./dump_program.ts";

Deno.test(
  "makeDumpFolder() makes folders, and refuses one that has files, and a file",
  inTestFolder(async (folder) => {
    const refusal = (path: string) => Effect.runPromise(Effect.flip(makeDumpFolder(path)));
    const dump = `${folder}/a/b`;
    await Effect.runPromise(makeDumpFolder(dump));
    await Effect.runPromise(makeDumpFolder(dump)); // it is empty still
    await Effect.runPromise(writeDump(dump, { "graph.txt": "x\n" }));
    assert.equal(Deno.readTextFileSync(`${dump}/graph.txt`), "x\n");
    assert.equal(
      (await refusal(dump)).message,
      `Cannot dump the program into "${dump}": it is not empty. Name a folder that is empty or does not exist`,
    );
    assert.match(
      (await refusal(`${dump}/graph.txt`)).message,
      /^Cannot dump the program into .*graph\.txt": /,
    );
    assert.equal(Deno.readTextFileSync(`${dump}/graph.txt`), "x\n");
  }),
);
