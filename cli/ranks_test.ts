/** Ranks of a run that stop, fail, die or hang: real processes, started as a user starts them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { endingOf, inTestFolder, shell, writeNoise } from "../data/_test_kit.ts";
import { mpiTest, runRanks } from "../pipeline/ranks/_test_mpi.ts";
import { savedStep } from "../pipeline/run/checkpoint_file.ts";
import { runStatus } from "../pipeline/run/run_status.ts";
import {
  currentOf,
  finish,
  result,
  savingRun,
  sleep,
  slotcon,
  start,
  until,
  withoutVoice,
} from "./_test_kit.ts";

const TWO = ["--ranks", "2", "--allow-shared-device"];

/** Sends a signal to rank 1 of the run in a folder; more than one such process, or none, is an error. */
const signalRank1 = async (signal: string, output: string) => {
  const line = `for process in /proc/[0-9]*; do
  if tr '\\0' '\\n' <$process/environ | grep -qx 'OMPI_COMM_WORLD_RANK=1\\|PMI_RANK=1' &&
    tr '\\0' '\\n' <$process/cmdline | grep -qxF "$1"; then kill -s "$0" "\${process#/proc/}"; echo; fi
done 2>/dev/null`;
  const { stdout } = await shell(line, [signal, output]).output();
  assert.equal(stdout.length, 1, "processes that are rank 1");
};

const stepOf = (output: string) => savedStep(currentOf(output).trim()) ?? 0;

const untilSaved = (output: string, step: number) =>
  until(`step ${step} is saved`, () => stepOf(output) >= step, 120);

/** How a run ends, and the seconds that it takes from now. */
const ending = async (run: Promise<Deno.CommandOutput>) => {
  const since = performance.now();
  return { ...endingOf(await run), seconds: (performance.now() - since) / 1000 };
};

mpiTest(
  "a run of two ranks that is killed in one of them, then stopped by Ctrl-C, ends with the bits of an undisturbed one",
  inTestFolder(async (folder) => {
    const [pictures, whole, disturbed] = ["pictures", "whole", "disturbed"].map((name) => join(folder, name));
    const steps = 12;
    await writeNoise(pictures);
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

/** The processes of a run in a folder, launchers included. */
const processesOf = async (output: string): Promise<number> => {
  const line = `for process in /proc/[0-9]*; do
  if tr '\\0' '\\n' <$process/cmdline | grep -qxF "$0"; then echo; fi
done 2>/dev/null`;
  return (await shell(line, [output]).output()).stdout.length - 1; // the shell itself names the folder, too
};

mpiTest(
  "ranks whose launcher is killed end within seconds, and leave a folder that --auto-resume goes on in",
  inTestFolder(async (folder) => {
    const [pictures, output] = ["pictures", "run"].map((name) => join(folder, name));
    await writeNoise(pictures);
    const launcher = start(pictures, output, 500, ...TWO);
    const ended = launcher.output();
    await untilSaved(output, 2);
    assert.ok(await processesOf(output) >= 4); // this launcher, mpirun, and two ranks
    launcher.kill("SIGKILL");
    await ended;
    await sleep(5000);
    assert.equal(await processesOf(output), 0);
    assert.equal(runStatus(output)?.kind, "killed");
    const steps = stepOf(output) + 1;
    await finish(pictures, output, steps, ...TWO);
    assert.equal(stepOf(output), steps);
  }),
);

mpiTest(
  "a rank that hangs is noticed by the others, which end the run",
  inTestFolder(async (folder) => {
    const [pictures, output] = ["pictures", "run"].map((name) => join(folder, name));
    await writeNoise(pictures);
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
    await writeNoise(pictures);
    const rank = (
      data: string,
    ) => [slotcon, ...savingRun(data, output, 100), "--allow-shared-device"];
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
    await writeNoise(join(folder, "pictures"));
    // A path with all that the launcher needs, and no mpirun.
    const line =
      `mkdir bin && ln -s "$DENO" bin/deno && for tool in sh dirname readlink mkdir cmp cat uname; do
  ln -s "$(command -v $tool)" bin/$tool; done; PATH=$PWD/bin exec "$0" "$@"`;
    const run = [slotcon, ...savingRun("pictures", "run", 3), ...TWO];
    const options = { cwd: folder, env: { DENO: Deno.execPath() } };
    const { code, err } = withoutVoice(endingOf(await shell(line, run, options).output()));
    assert.equal(code, 1);
    assert.match(
      err,
      /^slotcon: Several ranks need MPI, and there is no mpirun here: install Open MPI \(.*openmpi-bin.*\)\n$/,
    );
  }),
);
