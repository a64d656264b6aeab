import assert from "node:assert/strict";
import { launchedAs, mpiLibraries } from "./launch.ts";

const environment = (variables: Record<string, string>) => (name: string) => variables[name];

Deno.test("launchedAs() knows a rank by what its launcher says, and a process that is alone", () => {
  const slurm = { SLURM_PROCID: "0", SLURM_LOCALID: "0", SLURM_NTASKS: "8" };
  const cases: [Record<string, string>, ReturnType<typeof launchedAs>][] = [
    [{}, null],
    [{ OMPI_COMM_WORLD_RANK: "3", OMPI_COMM_WORLD_SIZE: "8" }, { by: "Open MPI", rank: 3, world: 8 }],
    [{ OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "1" }, null],
    [{ PMI_RANK: "1", PMI_SIZE: "2" }, { by: "MPICH", rank: 1, world: 2 }],
    [slurm, null], // a batch script, which has not called srun yet
    [{ ...slurm, SLURM_STEP_NUM_TASKS: "8" }, { by: "Slurm", rank: 0, world: 8 }],
    // mpirun within a job of Slurm
    [{ ...slurm, OMPI_COMM_WORLD_RANK: "5", OMPI_COMM_WORLD_SIZE: "6" }, {
      by: "Open MPI",
      rank: 5,
      world: 6,
    }],
  ];
  for (const [variables, expected] of cases) assert.deepEqual(launchedAs(environment(variables)), expected);
});

Deno.test("mpiLibraries() looks where the environment says, in the linker's folders, and beside the programs", () => {
  const env = { PATH: "/opt/mpi/bin:/usr/bin", LD_LIBRARY_PATH: "/site/lib" };
  const paths = mpiLibraries({ by: "Slurm" }, environment(env));
  const [first, ...others] = paths;
  assert.match(first, /^\/site\/lib\/libmpi\.(so\.40|40\.dylib)$/);
  const at = (path: RegExp) => others.findIndex((other) => path.test(other));
  assert.ok(0 <= at(/^\/opt\/mpi\/lib\//) && at(/^\/opt\/mpi\/lib\//) < at(/^\/usr\/lib\//));
  assert.ok(paths.some((path) => /^\/usr\/lib\/.*[.]12\b/.test(path)), "MPICH's, too");
  assert.deepEqual(mpiLibraries({ by: "Open MPI" }, environment({ ...env, SLOTCON_MPI_LIBRARY: "/x.so" })), [
    "/x.so",
  ]);
});
