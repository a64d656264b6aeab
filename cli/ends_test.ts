/** How runs end as processes: by signals, by a second run, and when nobody reads what they print. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { endingOf, inTestFolder, shell, writeNoise } from "../data/_test_kit.ts";
import { runStatus } from "../pipeline/run/run_status.ts";
import { currentOf, runTrimmed, savingRun, slotcon, start, until } from "./_test_kit.ts";

Deno.test(
  "a run is stopped by the end of its terminal, refuses a second one meanwhile, and its folder says how it ended",
  inTestFolder(async (folder) => {
    const [pictures, run] = ["pictures", "run"].map((name) => join(folder, name));
    await writeNoise(pictures);
    const child = start(pictures, run, 100_000);
    const output = child.output();
    await until("the run saves", () => currentOf(run) !== "");
    const second = await runTrimmed(folder, ...savingRun(pictures, run, 100_000));
    assert.equal(second.code, 1);
    assert.match(second.err, /^slotcon: Another run is writing into ".*run" \(process \d+ .*--output-dir$/m);
    assert.equal(runStatus(run)?.kind, "running");
    child.kill("SIGHUP");
    const { err } = endingOf(await output);
    assert.match(err, /Stopping: the current step is finished and saved first\n/);
    assert.match(
      err,
      /\n\d+ of 600 steps are done and saved\. To go on: slotcon pretrain --config .*config\.json --auto-resume\n/,
    );
    assert.equal(runStatus(run)?.kind, "stopped");

    const saved = currentOf(run);
    const again = start(pictures, run, 100_000);
    const killed = again.output();
    await until("the run saves again", () => currentOf(run) !== saved);
    again.kill("SIGKILL");
    await killed;
    assert.equal(runStatus(run)?.kind, "killed");
    const { out } = await runTrimmed(folder, "inspect", join(run, "checkpoints", currentOf(run).trim()));
    assert.match(out, /its end +killed/);
  }),
);

Deno.test(
  "a run goes on to its end when who reads its output is gone, when the disk for it is full, and under nohup",
  inTestFolder(async (folder) => {
    const [pictures, read, full, nohup] = ["pictures", "read", "full", "nohup"].map((name) =>
      join(folder, name)
    );
    await writeNoise(pictures);
    const run = (output: string) => [slotcon, ...savingRun(pictures, output, 12), "--print-freq", "1"];
    const begun = shell('nohup "$0" "$@"', run(nohup)).spawn();
    const ended = until("the run saves", () => currentOf(nohup) !== "").then(() => {
      begun.kill("SIGHUP");
      return begun.output();
    });
    const [ofRead, ofFull] = await Promise.all([
      shell('{ "$0" "$@" || echo "status $?" >&2; } | head -n 1', run(read)).output(),
      shell('"$0" "$@" >/dev/full 2>/dev/full', run(full)).output(),
    ]);
    assert.doesNotMatch(endingOf(ofRead).err, /mistake|status/);
    assert.equal(ofFull.code, 0);
    await ended;
    for (const output of [read, full, nohup]) {
      assert.equal(currentOf(output), "step_000012.safetensors\n");
      assert.equal(runStatus(output)?.kind, "finished");
    }
  }),
);
