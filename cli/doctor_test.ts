import assert from "node:assert/strict";
import { inTestFolder } from "../data/_test_kit.ts";
import { mpiTest } from "../pipeline/ranks/_test_mpi.ts";
import { runSlotcon } from "./_test_kit.ts";

const doctor = (folder: string, ...args: string[]) => runSlotcon(folder, "doctor", ...args);

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

Deno.test(
  "slotcon doctor --dump-program writes the step for an adapter that is not there, and overwrites nothing",
  inTestFolder(async (folder) => {
    const dump = (...traits: string[]) => doctor(folder, "--dump-program", "step", "--traits", ...traits);
    const { code, out } = await dump("gpu,min-subgroup-size=32");
    assert.equal(code, 0, out);
    assert.match(out, /^step: the step for a GPU, \d+ dispatches of \d+ shaders, /);
    const files = new Map(
      [...Deno.readDirSync(`${folder}/step`)].map(({ name }) => [
        name,
        Deno.readTextFileSync(`${folder}/step/${name}`),
      ]),
    );
    const { traits, kernels } = JSON.parse(files.get("kernels.json")!);
    assert.deepEqual([traits.cpu, traits.minSubgroupSize], [false, 32]);
    for (const { shader } of kernels) assert.match(files.get(shader)!, /@compute/);

    const again = await dump("cpu");
    assert.deepEqual([again.code, again.out], [1, ""]);
    assert.equal(Deno.readTextFileSync(`${folder}/step/kernels.json`), files.get("kernels.json"));
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
