/** Libraries in C that come with the system, at one of several places. */
import { dirname, join } from "node:path";
import type { Environment } from "./launch.ts";

/** The variables that say where libraries are. */
export const libraryVariables = ["LD_LIBRARY_PATH", "PATH"];

/** Folders in which the system's libraries can be: the dynamic linker's own, and those beside the programs on the path. */
export const libraryFolders = (env: Environment): readonly string[] => {
  const listed = (variable: string) => (env(variable) ?? "").split(":").filter((path) => path !== "");
  const beside = [`lib/${Deno.build.arch}-linux-gnu`, "lib64", "lib"];
  return [
    ...listed("LD_LIBRARY_PATH"),
    ...listed("PATH").flatMap((programs) => beside.map((folder) => join(dirname(programs), folder))),
  ];
};

/** The first of these libraries that can be opened, or why the last one that is there cannot; null where there is none. */
export const openLibrary = <S extends Deno.ForeignLibraryInterface>(
  paths: readonly string[],
  symbols: S,
): { path: string; functions: Deno.DynamicLibrary<S>["symbols"] } | { failure: string } | null => {
  let found: { failure: string } | null = null;
  for (const path of paths) {
    try {
      const functions = Deno.dlopen(path, symbols).symbols;
      keepLoaded(path);
      return { path, functions };
    } catch (error) {
      // What is not there is not allowed either: see cli/permissions.ts.
      const absent = error instanceof Deno.errors.NotCapable || /no such file/i.test(String(error));
      if (!absent) found = { failure: `"${path}" cannot be used (${(error as Error).message})` };
    }
  }
  return found;
};

/**
 * Deno closes libraries when the process ends, but threads that called them tidy up even later, with the libraries' code:
 * what has been opened a second time stays.
 */
const keepLoaded = (path: string) => {
  const { dlopen } = Deno.dlopen(path, {
    dlopen: { parameters: ["buffer", "i32"], result: "pointer", optional: true }, // of the C library that it links to
  }).symbols;
  const RTLD_LAZY = 1;
  dlopen?.(new TextEncoder().encode(`${path}\0`), RTLD_LAZY);
};
