/** Whether this process is one of several, and where the library is by which they speak. Imports little: see cli/launch/permissions.ts. */
import { join } from "node:path";
import { type Environment, libraryFolders, libraryVariables } from "./shared_library.ts";

/** Who started this process as one of several. */
export interface Launch {
  readonly by: "Open MPI" | "MPICH" | "Slurm";
  readonly rank: number;
  readonly world: number;
}

/** Variables in which launchers tell a process its rank and how many there are. MPICH's are those of its kin, too. */
const LAUNCHERS = [
  { by: "Open MPI", rank: "OMPI_COMM_WORLD_RANK", world: "OMPI_COMM_WORLD_SIZE" },
  { by: "MPICH", rank: "PMI_RANK", world: "PMI_SIZE" },
  { by: "Slurm", rank: "SLURM_PROCID", world: "SLURM_STEP_NUM_TASKS" }, // srun's; a batch script is no step
] as const;

/** The variables that tell it; a process must be allowed to read them. */
export const launchVariables: readonly string[] = [
  ...LAUNCHERS.flatMap(({ rank, world }) => [rank, world]),
  "SLOTCON_MPI_LIBRARY",
  ...libraryVariables,
];

/** How this process was started; null where it is the only one. */
export const launchedAs = (env: Environment): Launch | null => {
  for (const { by, ...names } of LAUNCHERS) {
    const rank = Number(env(names.rank) ?? NaN), world = Number(env(names.world) ?? NaN);
    if (rank >= 0 && world > 0) return world === 1 ? null : { by, rank, world };
  }
  return null;
};

/**
 * What `mpirun` is told through its environment, in the words of Open MPI 4 and of 5; MPICH needs none of it. A rank may
 * use all cores (its decoders and, without a GPU, its adapter do), there may be more ranks than cores, and root may
 * start them, as in containers. Who waits in a message lets others have the core: without that, an exchange takes
 * milliseconds on a machine that is busy, and microseconds with it.
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

// Open MPI 4 and 5 share a version of their interface, as do MPICH 3 to 5, Intel's MPI and MVAPICH.
const OPEN_MPI = Deno.build.os === "darwin" ? ["libmpi.40.dylib"] : ["libmpi.so.40"];
const MPICH = Deno.build.os === "darwin" ? ["libmpi.12.dylib"] : ["libmpich.so.12", "libmpi.so.12"];
const LIBRARIES: Readonly<Record<Launch["by"], readonly string[]>> = {
  "Open MPI": OPEN_MPI,
  "MPICH": MPICH,
  "Slurm": [...OPEN_MPI, ...MPICH],
};

/**
 * Paths at which the library of the MPI that started this process can be, likeliest first: the one that the environment
 * names, in the dynamic linker's folders, or beside the programs on the path.
 */
export const mpiLibraries = ({ by }: Pick<Launch, "by">, env: Environment): readonly string[] => {
  const named = env("SLOTCON_MPI_LIBRARY") ?? "";
  if (named !== "") return [named];
  return [
    ...new Set(LIBRARIES[by].flatMap((name) => libraryFolders(env).map((folder) => join(folder, name)))),
  ];
};
