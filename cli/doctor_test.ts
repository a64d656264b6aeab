import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../data/_test_folder.ts";
import { mpiTest } from "../pipeline/ranks/_test_mpi.ts";

const launcher = join(import.meta.dirname!, "slotcon");

/** Runs `slotcon doctor` in a folder. */
const doctor = async (cwd: string, ...args: string[]) => {
  const { code, stdout } = await new Deno.Command("sh", { args: [launcher, "doctor", ...args], cwd })
    .output();
  return { code, out: new TextDecoder().decode(stdout) };
};

Deno.test(
  "slotcon doctor --json tells all about this machine and leaves no trace",
  inTestFolder(async (folder) => {
    const { code, out } = await doctor(folder, "--json", "--preset", "demo", "--output-dir", "run");
    const { ready, adapter, plan, decodedPerSecond, output } = JSON.parse(out);
    assert.equal(code, 0, out);
    assert.equal(ready, true);
    assert.ok(adapter.limits.maxBufferSize > 0);
    assert.ok(plan.reservedBytes >= plan.peakBytes);
    assert.ok(decodedPerSecond > 0);
    assert.equal(output, "absent");
    assert.deepEqual([...Deno.readDirSync(folder)], []);
  }),
);

Deno.test(
  "slotcon doctor prints the plan of a run that is too large, and fails",
  inTestFolder(async (folder) => {
    const { code, out } = await doctor(folder, "--preset", "coco-800", "--batch-size", "1024");
    assert.equal(code, 1);
    assert.match(out, /activations +\d+ GiB/);
    assert.match(out, /^problem .*--batch-size \d+ fits$/m);
  }),
);

mpiTest(
  "slotcon doctor --ranks measures what two ranks exchange, alone and in a step",
  inTestFolder(async (folder) => {
    const { code, out } = await doctor(
      folder,
      ...["--json", "--preset", "demo", "--ranks", "2", "--allow-shared-device"],
    );
    assert.equal(code, 0, out);
    const { ranks, findings } = JSON.parse(out);
    assert.equal(ranks.ranks.length, 2);
    assert.ok(0 < ranks.small && ranks.small < ranks.large, out);
    const { seconds, syncSeconds, stops, exchangedBytes } = ranks.step;
    assert.ok(0 <= syncSeconds && syncSeconds < seconds && stops > 0 && exchangedBytes > 2 ** 20, out);
    assert.ok(
      findings.some(({ says }: { says: string }) => /^2 ranks sum 2 KiB in [\d.]+ (µs|ms)/.test(says)),
      out,
    );
  }),
);

mpiTest(
  "slotcon doctor --ranks says that ranks would share an adapter",
  inTestFolder(async (folder) => {
    const { code, out } = await doctor(folder, "--ranks", "2", "--device", "native:0,0");
    assert.equal(code, 1);
    assert.match(out, /^problem +2 ranks cannot work together here/m);
  }),
);
