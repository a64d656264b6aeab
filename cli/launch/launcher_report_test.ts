import assert from "node:assert/strict";
import { launcherReport } from "./launcher_report.ts";

const rule = "-".repeat(74);

/** What remains of this output, and the sentence that is made of it. */
const boiledDown = (output: string) => {
  const report = launcherReport();
  const shown = output.split("\n").flatMap((line) => [...report.lines(line)]);
  return { shown, culprit: report.culprit() };
};

Deno.test("launcherReport() names the rank that ended a job, as Open MPI 4 and 5 and MPICH tell it", () => {
  const killed4 = `slotcon: rank 0: hello
${rule}
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
${rule}
${rule}
mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).
${rule}`;
  const with1 = "and the others were ended with it";
  assert.deepEqual(boiledDown(killed4), {
    shown: ["slotcon: rank 0: hello"],
    culprit: `Rank 1 on vm was ended by signal 9 (Killed), ${with1}`,
  });
  const killed5 = `${rule}
prterun noticed that process rank 12 with PID 31375 on node gpu-1.site exited on
signal 9 (Killed).
${rule}`;
  assert.equal(
    boiledDown(killed5).culprit,
    `Rank 12 on gpu-1.site was ended by signal 9 (Killed), ${with1}`,
  );
  const failed = `${rule}
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-31390@1,1]
   Exit code:    3
${rule}`;
  assert.deepEqual(boiledDown(failed), { shown: [], culprit: `Rank 1 ended with status 3, ${with1}` });
  const mpich = `
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 31422 RUNNING AT vm
=   EXIT CODE: 9
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions`;
  assert.deepEqual(boiledDown(mpich), { shown: [""], culprit: `A rank was ended (Killed), ${with1}` });
});

Deno.test("launcherReport() shows what it does not know, and complaints that ranks share once", () => {
  const output = `slotcon: rank 1: There is no "x"
slotcon: rank 0: There is no "x"
epoch 1
epoch 1
${rule}
There are not enough slots available in the system
${rule}`;
  assert.deepEqual(boiledDown(output), {
    shown: [
      'slotcon: rank 1: There is no "x"',
      ...["epoch 1", "epoch 1", rule, "There are not enough slots available in the system", rule],
    ],
    culprit: null,
  });
  assert.equal(boiledDown("epoch 1").culprit, "A rank was ended, the launcher does not say which");
});
