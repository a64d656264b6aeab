/**
 * Text files of paths, one a line, as `--data-dir` takes them. Imports little: the launcher reads one before every
 * command.
 */
import { dirname, resolve } from "node:path";

/** Why a file is no list of paths. */
export type PathListProblem = "not text" | "no paths" | "too large";

/** Bytes that fit into a string. */
export const LARGEST_LIST = 2 ** 29 - 24;
export const MOST_PATHS = 2 ** 24;
const LONGEST_PATH = 4096;

/**
 * The paths in the contents of `file`, in their order, relative to the folder of the file. Lines end as on any system,
 * empty ones and spaces around a path do not count.
 */
export const pathsInList = (file: string, bytes: Uint8Array): readonly string[] | PathListProblem => {
  if (bytes.length > LARGEST_LIST) return "too large";
  if (bytes.includes(0)) return "not text"; // an image, for example
  const text = new TextDecoder().decode(bytes);
  if (text.includes("\uFFFD")) return "not text";
  const paths: string[] = [];
  for (const [line] of text.matchAll(/[^\r\n]+/g)) {
    const path = line.trim();
    if (path === "") continue;
    if (paths.length === MOST_PATHS || path.length > LONGEST_PATH) return "too large";
    paths.push(resolve(dirname(file), path));
  }
  return paths.length === 0 ? "no paths" : paths;
};
