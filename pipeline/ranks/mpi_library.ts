/**
 * The C library of MPI: the functions that are called here, and constants of its header, which differ between two
 * families.
 */
import { Data, Effect } from "effect";
import { type Library, openLibrary } from "./shared_library.ts";

/** There is no MPI to start several ranks, or to join them. */
export class MpiMissingError extends Data.Error<{ readonly reason: string }> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "MpiMissingError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Several ranks need MPI, and ${this.reason}: install Open MPI (Debian and Ubuntu: the package openmpi-bin; ` +
      "Fedora: openmpi; Homebrew: open-mpi)";
  }
}

// A handle is the address of a symbol in Open MPI and a 32-bit number in MPICH; either fits the register that "usize"
// goes into.
const HANDLE = "usize";
/** The result of every call: 0, or a code that `MPI_Error_string` explains. */
const CODE = { result: "i32" } as const;
/** Calls that may take long run on another thread. */
const SLOW = { ...CODE, nonblocking: true } as const;

const SYMBOLS = {
  MPI_Init_thread: { parameters: ["pointer", "pointer", "i32", "buffer"], ...SLOW },
  MPI_Finalize: { parameters: [], ...SLOW },
  MPI_Allreduce: { parameters: [HANDLE, "buffer", "i32", HANDLE, HANDLE, HANDLE], ...SLOW },
  MPI_Allgather: { parameters: ["buffer", "i32", HANDLE, "buffer", "i32", HANDLE, HANDLE], ...SLOW },
  MPI_Bcast: { parameters: ["buffer", "i32", HANDLE, "i32", HANDLE], ...SLOW },
  MPI_Barrier: { parameters: [HANDLE], ...SLOW },
  MPI_Comm_rank: { parameters: [HANDLE, "buffer"], ...CODE },
  MPI_Comm_size: { parameters: [HANDLE, "buffer"], ...CODE },
  MPI_Comm_set_errhandler: { parameters: [HANDLE, HANDLE], ...CODE },
  MPI_Error_string: { parameters: ["i32", "buffer", "buffer"], ...CODE },
  MPI_Get_library_version: { parameters: ["buffer", "buffer"], ...CODE },
} as const;

/** MPI_THREAD_SERIALIZED: calls come from different threads, one at a time. */
export const SERIALIZED = 2;

const MPICH = {
  world: 0x44000000n,
  errorsReturn: 0x54000001n,
  float: 0x4c00040an,
  byte: 0x4c00010dn,
  sum: 0x58000003n,
  inPlace: 0xffffffff_ffffffffn,
};

/** A library of MPI that is open. */
export interface MpiLibrary {
  /** Its path. */
  readonly path: string;
  /** The name and version that it reports. */
  readonly version: string;
  /** Its functions. */
  readonly functions: Library<typeof SYMBOLS>["functions"];
  /** The constants of its header. */
  readonly constants: Readonly<typeof MPICH>;
  /** The meaning of a code other than 0. */
  readonly textOf: (code: number) => string;
}

/** Opens the first library that exists at one of these paths. Fails with `MpiMissingError`. */
export const openMpiLibrary = (paths: readonly string[]): Effect.Effect<MpiLibrary, MpiMissingError> =>
  Effect.suspend(() => {
    const opened = openLibrary(paths, SYMBOLS);
    if (opened === null) return new MpiMissingError({ reason: "its library is not on this machine" });
    if ("failure" in opened) return new MpiMissingError({ reason: `its library ${opened.failure}` });
    return Effect.succeed(describe(opened));
  });

const describe = ({ path, functions, address }: Library<typeof SYMBOLS>): MpiLibrary => {
  const constants = address("ompi_mpi_comm_world") === 0n ? MPICH : {
    world: address("ompi_mpi_comm_world"),
    errorsReturn: address("ompi_mpi_errors_return"),
    float: address("ompi_mpi_float"),
    byte: address("ompi_mpi_byte"),
    sum: address("ompi_mpi_op_sum"),
    inPlace: 1n,
  };
  // No text of either family is longer than MPICH's version.
  const text = (write: (into: Uint8Array<ArrayBuffer>, length: Int32Array<ArrayBuffer>) => number) => {
    const bytes = new Uint8Array(8192), length = new Int32Array(1);
    write(bytes, length);
    return new TextDecoder().decode(bytes.subarray(0, length[0])).replace(/\0+$/, "").trim();
  };
  return {
    path,
    version: text(functions.MPI_Get_library_version).split("\n")[0],
    functions,
    constants,
    textOf: (code) => text((into, length) => functions.MPI_Error_string(code, into, length)),
  };
};
