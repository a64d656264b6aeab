import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect, Exit } from "effect";
import { inTestFolder, writeNoise } from "../../data/_test_kit.ts";
import { onRanks } from "../../ops/runtime/_test_ranks.ts";
import { OPTIONS, PRETRAIN_OPTIONS } from "../pretrain/config.ts";
import { programVersion } from "./program_version.ts";
import { expectSameRun, sharedOptions, type SharedRun } from "./same_run.ts";

const run: SharedRun = { version: "1", options: { "--seed": 0 }, images: [], dataDir: "/data" };

/** What all of three ranks say, of which the last one has another run. */
const said = async (usual: SharedRun, other: Partial<SharedRun>): Promise<string> => {
  const exits = await Effect.runPromise(
    onRanks(3, (rank) => Effect.exit(expectSameRun(rank === 2 ? { ...usual, ...other } : usual))),
  );
  const messages = exits.map((exit) =>
    Exit.isSuccess(exit) ? "" : (Effect.runSync(Effect.flip(exit)) as Error).message
  );
  assert.equal(new Set(messages).size, 1, "all ranks end, and say the same");
  return messages[0];
};

Deno.test("expectSameRun() names the version and the options in which a rank differs", async () => {
  assert.equal(await said(run, {}), "");
  assert.match(
    await said(run, { version: "2" }),
    /^Rank 2 runs version 2 of this program, rank 0 1: install/,
  );
  const config = Effect.runSync(PRETRAIN_OPTIONS.configure(null));
  const options = sharedOptions(PRETRAIN_OPTIONS, config);
  for (const name of PRETRAIN_OPTIONS.names) {
    if (OPTIONS[name].affects === "nothing" && name !== "steps" && name !== "startEpoch") continue;
    const other = sharedOptions(PRETRAIN_OPTIONS, { ...config, [name]: "another" });
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    const was = config[name] ?? "left out";
    assert.equal(
      await said({ ...run, options }, { options: other }),
      `Rank 2 has other options than rank 0: ${flag} another, not ${was}. Give all ranks the same`,
    );
  }
  const two = { "--base-lr": 0.5, "--seed": 1 };
  assert.match(
    await said({ ...run, options: { "--base-lr": 1, "--seed": null } }, { options: two }),
    /: --base-lr 0.5, not 1; --seed 1, not left out\./,
  );
});

Deno.test(
  "expectSameRun() names the first picture that a rank has otherwise: its name, its place or its content",
  inTestFolder(async (folder) => {
    const [a, b] = ["a", "b"].map((name) => join(folder, name));
    const images = await writeNoise(a, { count: 5 });
    const copies = await writeNoise(b, { count: 5 });
    const usual = { ...run, images, dataDir: a };
    const other = (images: readonly string[]) => said(usual, { images, dataDir: b });
    assert.equal(await other(copies), ""); // in a folder of another name
    assert.match(
      await other(copies.with(3, join(b, "x.png"))),
      /: 5, not 5; number 4 is "x\.png".*, not "3\.png" /,
    );
    assert.match(
      await other(copies.with(1, copies[2]).with(2, copies[1])),
      /number 2 is "2\.png" .*, not "1\.png" /,
    );
    assert.match(await other(copies.slice(0, 4)), /: 4, not 5; number 5 is none, not "4\.png" /);
    assert.match(
      await other([...copies, join(b, "5.png")]),
      /: 6, not 5; number 6 is "5\.png" .*, not none\./,
    );
    const bytes = await Deno.readFile(copies[4]);
    bytes[bytes.length >> 1] ^= 1;
    await Deno.writeFile(copies[4], bytes);
    const size = `${bytes.length} bytes, SHA-256 `;
    assert.match(
      await other(copies),
      new RegExp(`number 5 is "4\\.png" \\(${size}.*not "4\\.png" \\(${size}`),
    );
  }),
);

Deno.test("programVersion() tells the sources of this program, the same each time", () => {
  assert.match(programVersion(), /^\d+\.\d+\.\d+ \(sources [0-9a-f]{12}\)$/);
  assert.equal(programVersion(), programVersion());
});
