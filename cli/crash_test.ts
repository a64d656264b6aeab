/** What runs leave behind that are killed, or whose disk fills up: real processes, started as a user starts them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder, shell, writeNoise } from "../data/_test_kit.ts";
import { randomStream } from "../data/random/random.ts";
import { loadCheckpoint, savedStep } from "../pipeline/run/checkpoint_file.ts";
import { currentOf, finish, result, sleep, start, until } from "./_test_kit.ts";

const KILLS = 50;

/** A small disk can be had where this user may mount one in memory. */
const mount = async (folder: string, megabytes: number) =>
  (await shell('mount -t tmpfs -o size="$1"M tmpfs "$0"', [folder, String(megabytes)]).output()).success;
const unmount = (folder: string) => shell('umount "$0"', [folder]).output();

const probe = await Deno.makeTempDir();
const mountable = await mount(probe, 1);
if (mountable) await unmount(probe);
await Deno.remove(probe);

/** All files that a run takes for checkpoints, and the one that it takes for the newest, must be whole. */
const assertWhole = async (output: string) => {
  const folder = join(output, "checkpoints");
  const names = Array.from(Deno.readDirSync(folder), ({ name }) => name).filter((name) =>
    savedStep(name) !== null
  );
  for (const name of names) await Effect.runPromise(loadCheckpoint(join(folder, name)));
  assert.ok(
    names.includes(currentOf(output).trim()),
    `current names ${currentOf(output)}, there are ${names}`,
  );
};

Deno.test(
  `a run that is killed ${KILLS} times at random moments ends with the same bits as one that is not`,
  inTestFolder(async (folder) => {
    const [pictures, whole, killed] = ["pictures", "whole", "killed"].map((name) => join(folder, name));
    const steps = 300; // more than the killed ones come to
    await writeNoise(pictures);
    await finish(pictures, whole, steps);

    const random = randomStream(50);
    let advanced = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const before = currentOf(killed);
      const child = start(pictures, killed, steps);
      const output = child.output();
      // Every fifth in its first second, wherever that is; the others while steps follow one another.
      if (kill % 5 === 4) await sleep(1000 * random.uniform());
      else {
        for (const deadline = Date.now() + 60_000; currentOf(killed) === before && Date.now() < deadline;) {
          await sleep(2);
        }
        await sleep(100 * random.uniform());
      }
      child.kill("SIGKILL");
      const { signal, stderr } = await output;
      assert.equal(signal, "SIGKILL", new TextDecoder().decode(stderr)); // and not ended before by itself
      await assertWhole(killed);
      if (currentOf(killed) !== before) advanced++;
    }
    assert.ok(advanced >= 0.8 * KILLS, `only ${advanced} of ${KILLS} got further`);
    await finish(pictures, killed, steps);
    assert.deepEqual(await result(killed, steps), await result(whole, steps));
  }),
);

Deno.test({
  name: "a run whose disk fills up keeps its last checkpoint, goes on, and saves again when there is room" +
    (mountable ? "" : " (skipped: this user may not mount a small disk)"),
  ignore: !mountable,
  fn: inTestFolder(async (folder) => {
    const [pictures, whole, disk] = ["pictures", "whole", "disk"].map((name) => join(folder, name));
    const steps = 150;
    await writeNoise(pictures);
    await finish(pictures, whole, steps);

    await Deno.mkdir(disk);
    assert.ok(await mount(disk, 4));
    try {
      const run = join(disk, "run"), filler = join(disk, "filler");
      const child = start(pictures, run, steps);
      const output = child.output();
      const step = () => savedStep(currentOf(run).trim()) ?? 0;
      await until("the run saves", () => step() >= 10);
      for (let full = 0; full < 20;) { // a save that fails gives its room back: take that, too
        try {
          Deno.writeFileSync(filler, new Uint8Array(50_000), { append: true });
          full = 0;
        } catch {
          full++;
          await sleep(20);
        }
      }
      const kept = step();
      await sleep(1000);
      assert.equal(step(), kept);
      await assertWhole(run);
      await Deno.remove(filler);
      await until("the run saves again", () => step() > kept);
      const { code, stderr } = await output;
      const told = new TextDecoder().decode(stderr);
      assert.equal(code, 0, told);
      assert.match(told, /Cannot save checkpoint ".*": .*[Nn]o space left.*the run goes on and tries again/);
      assert.deepEqual(await result(run, steps), await result(whole, steps));
    } finally {
      await unmount(disk);
    }
  }),
});
