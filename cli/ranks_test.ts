/** Ranks of a run that stop, fail, die or hang: real processes, started as a user starts them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { inTestFolder } from "../data/_test_folder.ts";
import { mpiTest, runRanks } from "../pipeline/ranks/_test_mpi.ts";
import { savedStep } from "../pipeline/run/checkpoint_file.ts";
import {
  currentOf,
  finish,
  makePictures,
  pretrainArguments,
  result,
  sleep,
  slotcon,
  start,
} from "./_test_runs.ts";

const TWO = ["--ranks", "2", "--allow-shared-device"];

/** Sends a signal to rank 1 of the run in a folder; more than one such process, or none, is an error. */
const signalRank1 = async (signal: string, output: string) => {
  const line = `for process in /proc/[0-9]*; do
  if tr '\\0' '\\n' <$process/environ | grep -qx 'OMPI_COMM_WORLD_RANK=1\\|PMI_RANK=1' &&
    tr '\\0' '\\n' <$process/cmdline | grep -qxF "$1"; then kill -s "$0" "\${process#/proc/}"; echo; fi
done 2>/dev/null`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", line, signal, output] }).output();
  assert.equal(stdout.length, 1, "processes that are rank 1");
};

const stepOf = (output: string) => savedStep(currentOf(output).trim()) ?? 0;

const untilSaved = async (output: string, step: number) => {
  for (const deadline = Date.now() + 120_000; stepOf(output) < step; await sleep(20)) {
    assert.ok(Date.now() < deadline, `step ${step} is saved`);
  }
};

/** How a run ends, and the seconds that it takes from now. */
const ending = async (run: Promise<Deno.CommandOutput>) => {
  const since = performance.now();
  const { code, stdout, stderr } = await run;
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr), seconds: (performance.now() - since) / 1000 };
};

mpiTest(
  "a run of two ranks that is killed in one of them, then stopped by Ctrl-C, ends with the bits of an undisturbed one",
  inTestFolder(async (folder) => {
    const [pictures, whole, disturbed] = ["pictures", "whole", "disturbed"].map((name) => join(folder, name));
    const steps = 12;
    await makePictures(pictures);
    await finish(pictures, whole, steps, ...TWO);

    const killed = start(pictures, disturbed, steps, ...TWO).output();
    await untilSaved(disturbed, 3);
    await sleep(200);
    await signalRank1("KILL", disturbed);
    const death = await ending(killed);
    assert.ok(death.seconds < 30, `${death.seconds} s`);
    assert.notEqual(death.code, 0);
    assert.match(
      death.err,
      /^slotcon: Rank 1 .*was ended by signal 9 \(Killed\), and the others were ended with it$/m,
    );

    const stopped = start(pictures, disturbed, steps, ...TWO);
    const output = stopped.output();
    await untilSaved(disturbed, stepOf(disturbed) + 2);
    stopped.kill("SIGINT");
    const stop = await ending(output);
    assert.ok(stop.seconds < 30, `${stop.seconds} s`);
    assert.equal(stop.code, 130, stop.err);
    assert.doesNotMatch(stop.err, /was ended|ended with|mpirun/);
    assert.ok(stepOf(disturbed) < steps);

    await finish(pictures, disturbed, steps, ...TWO);
    assert.deepEqual(await result(disturbed, steps), await result(whole, steps));
  }),
);

mpiTest(
  "a rank that hangs is noticed by the others, which end the run",
  inTestFolder(async (folder) => {
    const [pictures, output] = ["pictures", "run"].map((name) => join(folder, name));
    await makePictures(pictures);
    const run = start(pictures, output, 500, ...TWO, "--watchdog-minutes", "0.2").output();
    await untilSaved(output, 2);
    await signalRank1("STOP", output);
    const { code, err, seconds } = await ending(run);
    assert.notEqual(code, 0);
    assert.ok(seconds < 12 + 30, `${seconds} s`);
    assert.match(
      err,
      /^slotcon: Rank 0 cannot .*: it has waited 12 s for the others, one of which hangs or is gone$/m,
    );
    await assert.rejects(signalRank1("CONT", output)); // nothing is left of it
  }),
);

mpiTest(
  "a rank that cannot open its data ends all ranks with what it says, under a launcher of the user's own",
  inTestFolder(async (folder) => {
    const [pictures, output, nowhere] = ["pictures", "run", "nowhere"].map((name) => join(folder, name));
    await makePictures(pictures);
    const rank = (
      data: string,
    ) => [slotcon, ...pretrainArguments(data, output, 100), "--allow-shared-device"];
    const since = performance.now();
    const { code, err } = await runRanks(
      1,
      [...rank(pictures), ":", "-n", "1", ...rank(nowhere)] as [string],
    );
    assert.notEqual(code, 0);
    assert.match(err, /^slotcon: rank 1: There is no ".*nowhere": --data-dir must name/m);
    assert.ok(performance.now() - since < 30_000);
  }),
);

Deno.test(
  "slotcon pretrain --ranks says which package is missing where there is no MPI",
  inTestFolder(async (folder) => {
    await makePictures(join(folder, "pictures"));
    // A path with all that the launcher needs, and no mpirun.
    const line = `mkdir bin && for tool in sh deno dirname readlink mkdir cmp cat uname; do
  ln -s "$(command -v $tool)" bin/$tool; done; PATH=$PWD/bin exec "$0" "$@"`;
    const args = pretrainArguments("pictures", "run", 3);
    const { code, stderr } = await new Deno.Command("sh", {
      args: ["-c", line, slotcon, ...args, ...TWO],
      cwd: folder,
    }).output();
    assert.equal(code, 1);
    assert.match(
      new TextDecoder().decode(stderr),
      /^slotcon: Several ranks need MPI, and there is no mpirun here: install Open MPI \(.*openmpi-bin.*\)\n$/,
    );
  }),
);
