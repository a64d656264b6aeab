/** Which program this is, so that ranks on different machines can tell whether they are the same. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import { PROJECT_VERSION } from "./project_version.ts";

/** Folders of code that decides what a run computes, and the file that names the libraries. */
const SOURCES = ["data", "ops", "pipeline", "deno.lock"];

/**
 * The version of this program, with a digest of its sources, since two checkouts of a version may differ; without one where
 * they are no files that this process may read.
 */
export const programVersion = (): string => {
  try {
    const hash = createHash("sha256");
    const root = join(import.meta.dirname!, "../..");
    for (const file of SOURCES.flatMap((source) => sourceFiles(root, source))) {
      hash.update(`${file}\n`).update(Deno.readFileSync(join(root, file)));
    }
    return `${PROJECT_VERSION} (sources ${hash.digest("hex").slice(0, 12)})`;
  } catch {
    return PROJECT_VERSION;
  }
};

/** A file, or the files of code below a folder but for tests, relative to `root` and in one order everywhere. */
const sourceFiles = (root: string, path: string): readonly string[] => {
  if (Deno.statSync(join(root, path)).isFile) return [path];
  const names = Array.from(Deno.readDirSync(join(root, path)))
    .filter(({ name, isDirectory }) =>
      isDirectory || /\.(ts|js|wgsl)$/.test(name) && !/^_|_test\.ts$/.test(name)
    );
  return names.map(({ name }) => `${path}/${name}`).sort().flatMap((child) => sourceFiles(root, child));
};
