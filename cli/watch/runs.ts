/** The watched runs: their folders, and what their files say at the moment. */
import { basename, join, relative, resolve, sep } from "node:path";
import { growingTable } from "./growing_table.ts";

export interface Run {
  readonly name: string;
  readonly folder: string;
  readonly metrics: ReturnType<typeof growingTable>;
  readonly times: ReturnType<typeof growingTable>;
}

const DEPTH = 3; // levels of folders in which runs are looked for

/** The runs in these folders, each the folder of a run or one with such folders. Those found later are added at the end. */
export const watchedRuns = (named: readonly string[]) => {
  const runs: Run[] = [];
  const known = new Set<string>();
  const add = (folder: string, name: string) => {
    if (known.has(folder)) return;
    known.add(folder);
    if (runs.some((run) => run.name === name)) name = folder;
    const [metrics, times] = ["metrics.jsonl", "times.jsonl"].map((file) => growingTable(join(folder, file)));
    runs.push({ name, folder, metrics, times });
  };
  const look = (root: string, folder: string, depth: number) => {
    const entries = entriesOf(folder);
    if (entries.some(({ name }) => name === "metrics.jsonl")) {
      return add(folder, relative(root, folder) || basename(resolve(folder)));
    }
    if (depth === DEPTH) return;
    for (const { name, isDirectory } of entries) if (isDirectory) look(root, join(folder, name), depth + 1);
  };
  return {
    runs,
    /** Looks again for runs. */
    find: () => {
      for (const root of named) look(root, root, 0);
    },
  };
};

const entriesOf = (folder: string): Deno.DirEntry[] => {
  try {
    return [...Deno.readDirSync(folder)].filter(({ name }) => !name.startsWith("."))
      .sort((a, b) => a.name < b.name ? -1 : 1);
  } catch {
    return []; // it does not exist yet, or may not be read
  }
};

/** The bytes of a file in a run's folder; null where there is none. Links that lead out of the folder are not followed. */
export const readInside = async (
  { folder }: Run,
  ...name: readonly string[]
): Promise<Uint8Array<ArrayBuffer> | null> => {
  try {
    const [root, file] = [await Deno.realPath(folder), await Deno.realPath(join(folder, ...name))];
    return file.startsWith(root + sep) ? await Deno.readFile(file) : null;
  } catch {
    return null;
  }
};

/** The object in a JSON file of a run; an empty one where there is none. */
export const readObject = async (run: Run, name: string): Promise<Record<string, unknown>> => {
  const bytes = await readInside(run, name);
  if (bytes === null) return {};
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
};

export const slotMapName = (step: number): string => `step_${String(step).padStart(6, "0")}.jpg`;

/** The steps that have slot maps, ascending. */
export const slotMapsOf = ({ folder }: Run): number[] =>
  entriesOf(join(folder, "slot_maps")).flatMap(({ name }) => {
    const step = name.match(/^step_(\d+)\.jpg$/)?.[1];
    return step === undefined ? [] : [Number(step)];
  }).sort((a, b) => a - b);

/** The time when a run last wrote metrics, in milliseconds since 1970; null where there are none. */
export const writtenAt = async ({ folder }: Run): Promise<number | null> => {
  try {
    return (await Deno.stat(join(folder, "metrics.jsonl"))).mtime?.getTime() ?? null;
  } catch {
    return null;
  }
};
