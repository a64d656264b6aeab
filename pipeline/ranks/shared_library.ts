/** Shared libraries of the system, at one of several paths. */
import { dirname, join } from "node:path";

/** Reads a variable of the environment. */
export type Environment = (name: string) => string | undefined;

/** The variables that say where libraries are. */
export const libraryVariables: readonly string[] = ["LD_LIBRARY_PATH", "PATH"];

/**
 * Folders in which the system's libraries can be: the dynamic linker's own, and those beside the programs on the path.
 */
export const libraryFolders = (env: Environment): readonly string[] => {
  const listed = (variable: string) => (env(variable) ?? "").split(":").filter((path) => path !== "");
  const beside = [`lib/${Deno.build.arch}-linux-gnu`, "lib64", "lib"];
  return [
    ...listed("LD_LIBRARY_PATH"),
    ...listed("PATH").flatMap((programs) => beside.map((folder) => join(dirname(programs), folder))),
  ];
};

/** A library that is open. */
export interface Library<S extends Deno.ForeignLibraryInterface> {
  /** Its path. */
  readonly path: string;
  /** Its functions, by name. */
  readonly functions: Deno.DynamicLibrary<S>["symbols"];
  /** The address of a symbol; 0 where the library has none of that name. */
  readonly address: (symbol: string) => bigint;
}

/** The first of these libraries that can be opened, or why one that exists cannot be; null where none exists. */
export const openLibrary = <S extends Deno.ForeignLibraryInterface>(
  paths: readonly string[],
  symbols: S,
): Library<S> | { readonly failure: string } | null => {
  let found: { failure: string } | null = null;
  for (const path of paths) {
    try {
      return { path, functions: Deno.dlopen(path, symbols).symbols, address: pinned(path) };
    } catch (error) {
      // A library that does not exist is not among the permissions either: see cli/launch/permissions.ts.
      const absent = error instanceof Deno.errors.NotCapable || /no such file/i.test(String(error));
      if (!absent) found = { failure: `"${path}" cannot be used (${(error as Error).message})` };
    }
  }
  return found;
};

/**
 * Keeps a library open for good. Deno closes libraries when the process ends, but threads that called them run the
 * libraries' code even later, to clean up.
 */
const pinned = (path: string) => {
  const { dlopen, dlsym } = Deno.dlopen(path, C).symbols;
  const handle = dlopen(cString(path), RTLD_LAZY);
  return (symbol: string) => dlsym(handle, cString(symbol));
};

const RTLD_LAZY = 1;

// Functions of the C library, which every other one links to. Addresses are numbers here: only a process that may call
// any library may read through Deno's own pointers.
const C = {
  dlopen: { parameters: ["buffer", "i32"], result: "usize" },
  dlsym: { parameters: ["usize", "buffer"], result: "usize" },
} as const;

const cString = (text: string) => new TextEncoder().encode(`${text}\0`);
