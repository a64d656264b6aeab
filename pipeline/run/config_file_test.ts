import assert from "node:assert/strict";
import { Effect } from "effect";
import { PRETRAIN_OPTIONS } from "../pretrain/config.ts";
import { parseConfig, readConfigFile } from "./config_file.ts";

Deno.test("a configuration's aliases that lead nowhere or everywhere are refused with file and line", async () => {
  const laughs = "bcdefghi".split("").map((name, i) =>
    `  ${name}: &${name} [${Array(9).fill(`*${"abcdefgh"[i]}`)}]\n`
  );
  for (
    const [line, text] of [
      [1, "epochs: *nope\n"],
      [2, "seed: 1\nepochs: &a [*a]\n"],
      [1, "epochs: &a {x: *a}\n"],
      [1, `batch-size:\n  a: &a [x,x,x,x,x,x,x,x,x]\n${laughs.join("")}`],
    ] as const
  ) {
    const message = await Effect.runPromise(Effect.flip(parseConfig(text, "run.yaml", PRETRAIN_OPTIONS)))
      .then(({ message }) => message);
    assert.match(message, new RegExp(`^"run.yaml", line ${line}: .*aliases`), message);
    assert.ok(!message.includes("\n"));
  }
});

Deno.test("a configuration that is a device, a folder or far too large is refused without being read", async () => {
  const file = await Deno.makeTempFile();
  await Deno.truncate(file, 2 ** 40);
  for (
    const [path, reason] of [["/dev/zero", /it is no file/], ["/", /it is no file/], [
      file,
      /expected at most/,
    ]] as const
  ) {
    const { message } = await Effect.runPromise(Effect.flip(readConfigFile(path, PRETRAIN_OPTIONS)));
    assert.match(message, reason);
  }
  await Deno.remove(file);
});
