import assert from "node:assert/strict";
import { join } from "node:path";
import { shell } from "../../data/_test_kit.ts";
import { mpiTest, runScript } from "./_test_mpi.ts";
import { launcherSettings, STDIN_OF_LAUNCHER } from "./launch.ts";

/** What every rank of a case finds, by rank. */
const run = (ranks: number, name: string, watchdogMinutes = 1) =>
  runScript(ranks, join(import.meta.dirname!, "_mpi_rank.ts"), [name, String(watchdogMinutes)]);

const results = async (ranks: number, name: string) => {
  const { code, err, found } = await run(ranks, name);
  assert.equal(code, 0, err);
  assert.deepEqual(found.map(({ rank }) => rank), Array.from({ length: ranks }, (_, rank) => rank), err);
  return found;
};

for (const world of [2, 3]) {
  mpiTest(`ranks() gives all of ${world} ranks the same bits of a sum, twice`, async () => {
    const found = [...await results(world, "sums"), ...await results(world, "sums")];
    for (const { digests } of found) assert.deepEqual(digests, found[0].digests);
    assert.deepEqual(found[0].small, world === 2 ? [2, 10, -1] : [3, 30, -1.5]);
  });

  mpiTest(`ranks() gathers and broadcasts between ${world} ranks`, async () => {
    for (const found of await results(world, "exchanges")) {
      assert.equal(found.world, world);
      assert.deepEqual(found.gathered, Array.from({ length: world }, (_, rank) => [rank, 0.5]).flat());
      assert.equal(found.received, "of rank 0");
      assert.equal(found.none, 0);
    }
  });
}

mpiTest(
  "ranks() carries out a hundred calls of different kinds at once, each with its own result",
  async () => {
    const expected = Array.from(
      { length: 100 },
      (_, i) => i % 2 === 0 ? [3 * i, 3] : [i, 1000 + i, 2000 + i],
    );
    for (const found of await results(3, "inFlight")) {
      assert.deepEqual(found.results, expected);
    }
  },
);

mpiTest("ranks() leaves JavaScript's thread free while it waits for others", async () => {
  const [{ ticks }] = await results(2, "free");
  assert.ok(ticks > 30, `${ticks} ticks of 10 ms in the second that rank 1 is late`);
});

mpiTest("ranks() reports calls that do not fit each other in MPI's own words", async () => {
  const { code, err } = await run(2, "unequal");
  assert.notEqual(code, 0);
  assert.match(err, /^Rank \d cannot sum \d+ numbers over the ranks: .*truncated/im);
});

mpiTest("ranks() gives up a call that does not come back, which ends the job", async () => {
  const { code, err } = await run(2, "absent", 2 / 60);
  assert.notEqual(code, 0);
  assert.match(err, /^Rank 0 cannot wait for the other ranks: it has waited 2 s .* hangs or is gone$/m);
});

mpiTest("ranks() ends all ranks when one fails, with what that one says", async () => {
  const { code, err } = await run(2, "failing");
  assert.notEqual(code, 0);
  assert.match(err, /^rank 1 has no data$/m);
  assert.doesNotMatch(err, /Rank 0 cannot/);
});

mpiTest(
  "ranks() ends all ranks when their starter is gone, also while JavaScript's thread is blocked",
  async () => {
    const script = join(import.meta.dirname!, "_mpi_rank.ts");
    const deno = [Deno.execPath(), "run", "--quiet", "--cached-only", "-A", script, "blocked", "1"];
    const env = { ...launcherSettings, [STDIN_OF_LAUNCHER]: "yes" };
    const launcher = shell('exec mpirun -n 2 "$@"', ["sh", ...deno], { env, stdin: "piped" }).spawn();
    let said = "";
    for await (const text of launcher.stdout.pipeThrough(new TextDecoderStream())) {
      said += text;
      if (said.split("blocked").length > 2) break;
    }
    const since = performance.now();
    await launcher.stdin.close(); // as the system does where a process is killed
    await launcher.stderr.cancel();
    assert.notEqual((await launcher.status).code, 0);
    assert.ok(performance.now() - since < 5000);
  },
);

mpiTest("ranks() loads nothing of MPI where there is one rank", async () => {
  const [alone] = await results(1, "loaded");
  assert.deepEqual(alone, { rank: 0, world: 1, loaded: false });
  assert.ok((await results(2, "loaded")).every(({ loaded }) => loaded));
});
