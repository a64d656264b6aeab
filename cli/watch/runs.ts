/** The runs that are watched: folders, and what their files say at the moment. */
import { createHash } from "node:crypto";
import { lstat } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import { printable } from "../../data/files/printable.ts";
import { type RunStatus, runStatus, STATUS_FILE } from "../../pipeline/run/run_status.ts";
import { type GrowingTable, growingTable } from "./growing_table.ts";
import { readInside } from "./run_file.ts";

export interface Run {
  readonly name: string;
  readonly folder: string;
  readonly metrics: GrowingTable;
  readonly times: GrowingTable;
  /** What the page needs of the run's plan; empty where there is none. */
  readonly plan: () => Promise<ShownPlan>;
  /** How it is doing or how it ended; null where its folder does not say. */
  readonly status: () => Promise<ShownStatus | null>;
  /** The steps of which there are slot maps, ascending; the last ones of many. */
  readonly slotMaps: () => Promise<readonly number[]>;
  /** The steps after which predictions were drawn. */
  readonly predictions: () => Promise<readonly number[]>;
}

const DEPTH = 3; // folders below one that is named in which runs are looked for
const MOST_RUNS = 200;
const MOST_FOLDERS = 4000; // that are looked into
const LARGEST_FOLDER = 2 ** 22; // bytes of the list of its files, which is read as a whole

// Numbers in memory: of all tables together, and of one, which is 4096 rows of some 40 columns.
const MOST_NUMBERS = { ofAll: 2 ** 24, ofOne: 2 ** 19 };

/**
 * The runs in these folders, which are runs themselves or hold some; ones that have appeared since are added at the end,
 * and those whose metrics are gone are left out.
 */
export const watchedRuns = (named: readonly string[]) => {
  const runs: Run[] = [];
  let isLimited = false;
  let looking: Promise<void> | null = null;
  const mostNumbers = () => Math.min(MOST_NUMBERS.ofOne, MOST_NUMBERS.ofAll / (2 * runs.length));

  const add = (folder: string, inside: string) => {
    const short = printable(inside);
    const name = runs.some((run) => run.name === short) ? printable(folder) : short;
    const [metrics, times] = ["metrics.jsonl", "times.jsonl"].map((file) =>
      growingTable(join(folder, file), mostNumbers)
    );
    const plan = planIn(folder);
    const [slotMaps, predictions] = [drawnIn(folder, "slot_maps"), drawnIn(folder, "predictions")];
    runs.push({ name, folder, metrics, times, plan, status: () => statusIn(folder), slotMaps, predictions });
  };

  const look = async () => {
    const found = new Map<string, readonly [folder: string, inside: string]>(); // by their whole path
    let looked = 0;
    for (const root of named) {
      const inRoot: [folder: string, inside: string][] = [];
      for (let [depth, level] = [0, [root]]; depth <= DEPTH; depth++) {
        const below: string[] = [];
        for (const folder of level) {
          if (++looked > MOST_FOLDERS) break;
          if (await isThere(join(folder, "metrics.jsonl"))) {
            inRoot.push([folder, relative(root, folder) || basename(resolve(folder))]);
          } else if (depth < DEPTH) {
            for (const name of await foldersIn(folder, folder === root)) below.push(join(folder, name));
          }
        }
        level = below;
      }
      inRoot.sort(([, a], [, b]) => a < b ? -1 : 1);
      for (const each of inRoot) if (!found.has(resolve(each[0]))) found.set(resolve(each[0]), each);
    }
    const kept = runs.filter(({ folder }) => found.delete(resolve(folder)));
    runs.splice(0, runs.length, ...kept);
    isLimited = looked > MOST_FOLDERS || runs.length + found.size > MOST_RUNS;
    for (const [folder, inside] of found.values()) if (runs.length < MOST_RUNS) add(folder, inside);
  };

  return {
    runs,
    /** Looks again for runs. */
    find: (): Promise<void> => looking ??= look().finally(() => looking = null),
    /** Whether there are more runs or folders than are looked at. */
    isLimited: () => isLimited,
  };
};

export type WatchedRuns = ReturnType<typeof watchedRuns>;

/** Told where `isLimited`. */
export const LIMITED =
  `Not all is shown: at most ${MOST_RUNS} runs are, of ${MOST_FOLDERS} folders that are looked into; ` +
  "name folders with fewer";

/**
 * What a run goes by in the page and in its questions, also after the server was started again: its folder, and the start
 * of the run in it, as another may be in the same folder later.
 */
export const identityOf = ({ folder, metrics }: Run): string =>
  createHash("sha256").update(`${resolve(folder)}\0${metrics.start()}`).digest("hex").slice(0, 16);

const isThere = (path: string) => lstat(path).then(() => true, () => false);

const foldersIn = async (folder: string, mayBeLink: boolean): Promise<string[]> =>
  (await entriesOf(folder, mayBeLink)).filter(({ isDirectory }) => isDirectory).map(({ name }) => name);

/** What a folder holds besides hidden files; nothing of what is no folder or is too large to be read. */
const entriesOf = async (folder: string, mayBeLink = false): Promise<Deno.DirEntry[]> => {
  try {
    const { isDirectory, size } = await (mayBeLink ? Deno.stat : Deno.lstat)(folder);
    if (!isDirectory || size > LARGEST_FOLDER) return [];
    return (await Array.fromAsync(Deno.readDir(folder))).filter(({ name }) => !name.startsWith("."));
  } catch {
    return []; // it does not exist yet, or may not be read
  }
};

/** What `read` gives of a file or folder, read again only after that has changed. */
const readOnChange = <A>(path: string, read: () => Promise<A>): () => Promise<A> => {
  let seen: string | undefined;
  let value: Promise<A>;
  return async () => {
    const stamp = await lstat(path).then(
      ({ ino, size, mtimeMs }) => `${ino} ${size} ${mtimeMs}`,
      () => "none",
    );
    if (stamp !== seen) [seen, value] = [stamp, read()];
    return value;
  };
};

const LONGEST_PLAN = 2 ** 20; // bytes

/** A plan, of which any part may be missing. */
export interface ShownPlan {
  readonly lastStep?: number;
  readonly stepsPerEpoch?: number;
  readonly batchSize?: number;
  readonly deviceBytes?: number;
  readonly memory?: Readonly<Record<string, number>>;
  readonly device?: string;
}

const planIn = (folder: string) =>
  readOnChange(join(folder, "plan.json"), async (): Promise<ShownPlan> => {
    const bytes = await readInside(folder, "plan.json", LONGEST_PLAN);
    const plan = bytes === null ? {} : objectIn(bytes);
    const amounts = ["lastStep", "stepsPerEpoch", "batchSize", "deviceBytes"].filter((name) =>
      isAmount(plan[name])
    );
    const memory = Object.entries(plan.memory ?? {}).filter(([, bytes]) => isAmount(bytes)).slice(0, 20);
    return {
      ...Object.fromEntries(amounts.map((name) => [name, plan[name]])),
      ...memory.length > 0 ? { memory: Object.fromEntries(memory) as Record<string, number> } : {},
      ...typeof plan.device === "string" ? { device: printable(plan.device) } : {},
    };
  });

const objectIn = (bytes: Uint8Array): Record<string, unknown> => {
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
};

const isAmount = (value: unknown) =>
  typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER;

/** A status as it may be shown: `at` is a time as ISO 8601 has it. */
export interface ShownStatus {
  readonly kind: RunStatus["kind"];
  readonly at?: string;
  readonly reason?: string;
}

const LONGEST_REASON = 1000; // characters

/** Asked anew each time, since a process that is killed leaves its file as it was. */
const statusIn = async (folder: string): Promise<ShownStatus | null> => {
  const isPlain = await lstat(join(folder, STATUS_FILE)).then((found) => found.isFile(), () => false);
  const status = isPlain ? runStatus(folder) : null;
  if (status === null) return null;
  const at = "at" in status ? Date.parse(status.at) : NaN;
  return {
    kind: status.kind,
    ...Number.isNaN(at) ? {} : { at: new Date(at).toISOString() },
    ...status.kind === "failed" ? { reason: printable(status.reason, LONGEST_REASON) } : {},
  };
};

const LARGEST_PICTURE = 2 ** 23; // bytes
const MOST_DRAWINGS = 1000;

/** The folders of a run that hold rows of pictures. */
export type Drawings = "slot_maps" | "predictions";

/** A row of pictures as JPEG: after so many steps, as they are, or with the truth; null where there is none. */
export const drawingOf = (
  { folder }: Run,
  drawings: Drawings,
  which: number | "pictures" | "truth",
): Promise<Uint8Array<ArrayBuffer> | null> => {
  const name = typeof which === "number" ? `step_${String(which).padStart(6, "0")}` : which;
  return readInside(folder, join(drawings, `${name}.jpg`), LARGEST_PICTURE);
};

const drawnIn = (folder: string, drawings: Drawings) =>
  readOnChange(
    join(folder, drawings),
    async (): Promise<readonly number[]> =>
      (await entriesOf(join(folder, drawings))).flatMap(({ name }) => {
        const step = name.match(/^step_(\d{6,9})\.jpg$/)?.[1];
        return step === undefined ? [] : [Number(step)];
      }).sort((a, b) => a - b).slice(-MOST_DRAWINGS),
  );
