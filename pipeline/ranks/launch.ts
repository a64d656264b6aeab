/**
 * Whether this process is one of several ranks, and where the library is over which they communicate. Every command
 * imports this file before it starts (cli/launch/permissions.ts), so it imports little.
 */
import { join } from "node:path";
import { type Environment, libraryFolders, libraryVariables } from "./shared_library.ts";

/** How this process was started as one of several. */
export interface Launch {
  /** The launcher. */
  readonly by: "Open MPI" | "MPICH" | "Slurm";
  /** The number of this process, from 0. */
  readonly rank: number;
  /** The number of processes. */
  readonly world: number;
}

/**
 * The variables in which launchers give a process its rank and their number; MPICH's are also those of its
 * derivatives.
 */
const LAUNCHERS = [
  { by: "Open MPI", rank: "OMPI_COMM_WORLD_RANK", world: "OMPI_COMM_WORLD_SIZE" },
  { by: "MPICH", rank: "PMI_RANK", world: "PMI_SIZE" },
  { by: "Slurm", rank: "SLURM_PROCID", world: "SLURM_STEP_NUM_TASKS" }, // set by srun, not in a batch script
] as const;

/**
 * The variable that tells rank 0 that its standard input is a pipe from the process that starts the ranks, which ends with
 * that process.
 */
export const STDIN_OF_LAUNCHER = "SLOTCON_STDIN_OF_LAUNCHER";

/** The environment variables that a rank reads. */
export const launchVariables: readonly string[] = [
  ...LAUNCHERS.flatMap(({ rank, world }) => [rank, world]),
  "SLOTCON_MPI_LIBRARY",
  STDIN_OF_LAUNCHER,
  ...libraryVariables,
];

/** How this process was started; null where it is the only one. `env` reads the environment. */
export const launchedAs = (env: Environment): Launch | null => {
  for (const { by, ...names } of LAUNCHERS) {
    const rank = Number(env(names.rank) ?? NaN), world = Number(env(names.world) ?? NaN);
    if (rank >= 0 && world > 0) return world === 1 ? null : { by, rank, world };
  }
  return null;
};

/**
 * Environment variables for `mpirun`, in the names of Open MPI 4 and 5; MPICH needs none. A rank may use all cores
 * (its decoders do and, without a GPU, its adapter), there may be more ranks than cores, and root may start them, as
 * in containers. A rank that waits for a message yields its core: otherwise an exchange takes milliseconds on a busy
 * machine instead of microseconds.
 */
export const launcherSettings: Readonly<Record<string, string>> = {
  OMPI_MCA_hwloc_base_binding_policy: "none",
  PRTE_MCA_hwloc_default_binding_policy: "none",
  OMPI_MCA_rmaps_base_oversubscribe: "1",
  PRTE_MCA_rmaps_default_mapping_policy: ":oversubscribe",
  OMPI_MCA_mpi_yield_when_idle: "1",
  OMPI_ALLOW_RUN_AS_ROOT: "1",
  OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
  PRTE_ALLOW_RUN_AS_ROOT: "1",
  PRTE_ALLOW_RUN_AS_ROOT_CONFIRM: "1",
};

// Open MPI 4 and 5 have the same version of their binary interface, as have MPICH 3 to 5, Intel's MPI and MVAPICH.
const OPEN_MPI = Deno.build.os === "darwin" ? ["libmpi.40.dylib"] : ["libmpi.so.40"];
const MPICH = Deno.build.os === "darwin" ? ["libmpi.12.dylib"] : ["libmpich.so.12", "libmpi.so.12"];
const LIBRARIES: Readonly<Record<Launch["by"], readonly string[]>> = {
  "Open MPI": OPEN_MPI,
  "MPICH": MPICH,
  "Slurm": [...OPEN_MPI, ...MPICH],
};

/**
 * The paths at which the library of the MPI that started this process can be, the likeliest first: the one that the
 * environment names, or else in the dynamic linker's folders and beside the programs on the path.
 */
export const mpiLibraries = ({ by }: Pick<Launch, "by">, env: Environment): readonly string[] => {
  const named = env("SLOTCON_MPI_LIBRARY") ?? "";
  if (named !== "") return [named];
  return [
    ...new Set(LIBRARIES[by].flatMap((name) => libraryFolders(env).map((folder) => join(folder, name)))),
  ];
};
