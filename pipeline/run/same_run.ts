/** Whether all ranks have been started for the same run: told before the first step, and by name. */
import { createHash } from "node:crypto";
import { basename, relative } from "node:path";
import { Effect } from "effect";
import { statOf } from "../../data/files/exists.ts";
import { Collective, type CollectiveError, gatherTexts } from "../../ops/runtime/collective.ts";
import { flagName } from "./option_name.ts";
import { RUN_OPTIONS, type TaskOptions } from "./options.ts";
import { programVersion } from "./program_version.ts";
import { preparing } from "./progress.ts";
import { RanksDifferError } from "./replicas.ts";

/** What all ranks of a run must have in common. */
export interface SharedRun {
  /** The version of the program; that of this one unless given. */
  readonly version?: string;
  /** The options that decide what is computed, by their names on the command line. */
  readonly options: Readonly<Record<string, unknown>>;
  /** The images (paths), in their order. */
  readonly images: readonly string[];
  /** The folder of the data set, which may have another name on another machine. */
  readonly dataDir: string;
}

/**
 * The options of a run that all of its ranks must have in common, by their names on the command line: those that decide what
 * is computed, and those by which a task decides when it does what. Paths may differ from machine to machine.
 */
export const sharedOptions = <C>(
  { names, table }: Pick<TaskOptions<C>, "names" | "table">,
  config: C,
): SharedRun["options"] =>
  Object.fromEntries(
    names.filter((name) => table[name].kind !== "path")
      .filter((name) => table[name].affects === "numbers" || !Object.hasOwn(RUN_OPTIONS, name))
      .map((name) => [`--${flagName(name)}`, config[name]]),
  );

/**
 * Compares version, options and images of all ranks. Images are compared by name and order, and up to a thousand of them,
 * evenly spaced, by size and first 64 KiB. Fails with a `RanksDifferError` that names the first rank that differs from
 * rank 0, and in what, or with a `CollectiveError`.
 */
export const expectSameRun = Effect.fnUntraced(function* (
  { version, options, images, dataDir }: SharedRun,
): Effect.fn.Return<void, RanksDifferError | CollectiveError> {
  const { world } = yield* Collective;
  if (world === 1) return;
  yield* preparing("Comparing version, options and pictures of the ranks");
  const versions = yield* gatherTexts(version ?? programVersion());
  const otherVersion = versions.findIndex((other) => other !== versions[0]);
  if (otherVersion >= 0) {
    return yield* new RanksDifferError({
      reason: `Rank ${otherVersion} runs version ${versions[otherVersion]} of this program, rank 0 ` +
        `${versions[0]}: install the same on every machine`,
    });
  }
  const all = (yield* gatherTexts(JSON.stringify(options))).map((text) => JSON.parse(text) as typeof options);
  for (const [rank, other] of all.entries()) {
    const differing = Object.keys(all[0]).filter((name) => other[name] !== all[0][name]);
    if (differing.length === 0) continue;
    const listed = differing.map((name) => `${name} ${inWords(other[name])}, not ${inWords(all[0][name])}`);
    return yield* new RanksDifferError({
      reason: `Rank ${rank} has other options than rank 0: ${listed.join("; ")}. Give all ranks the same`,
    });
  }
  yield* expectSameImages(images, dataDir);
});

const inWords = (value: unknown) => value === null ? "left out" : String(value);

// --- Images ---

/** Images of which more than the name is compared, at most, and the bytes of each that are. */
const SAMPLE = 1000, HEAD = 2 ** 16;

const expectSameImages = Effect.fnUntraced(function* (images: readonly string[], dataDir: string) {
  const counts = (yield* gatherTexts(String(images.length))).map(Number);
  const every = Math.ceil(counts[0] / SAMPLE);
  const own = images.map((image, i) => {
    const path = relative(dataDir, image);
    const name = JSON.stringify(path.startsWith("..") ? basename(image) : path);
    return i % every === 0 ? `${name} (${contentOf(image)})` : name;
  });
  const digests = yield* gatherTexts(digestOf(own));
  const rank = digests.findIndex((digest) => digest !== digests[0]);
  if (rank < 0) return;

  let same = 0, differ = Math.max(counts[0], counts[rank]); // how many images from the first on are the same
  while (differ - same > 1) {
    const middle = (same + differ) >> 1;
    const of = yield* gatherTexts(digestOf(own.slice(0, middle)));
    if (of[rank] === of[0]) same = middle;
    else differ = middle;
  }
  const found = yield* gatherTexts(own[same] ?? "none");
  return yield* new RanksDifferError({
    reason: `Rank ${rank} has other pictures than rank 0: ${counts[rank]}, not ${counts[0]}; number ${
      same + 1
    } is ${found[rank]}, not ${
      found[0]
    }. --data-dir must name the same pictures in the same order everywhere`,
  });
});

const digestOf = (texts: readonly string[]): string => {
  const hash = createHash("sha256");
  for (const text of texts) hash.update(`${text}\n`);
  return hash.digest("hex");
};

/** Size and beginning of a file, in a few words. */
const contentOf = (path: string): string => {
  const info = statOf(path);
  if (!info?.isFile) return "no file";
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(Math.min(HEAD, info.size));
    for (let filled = 0; filled < bytes.length;) {
      const count = file.readSync(bytes.subarray(filled));
      if (count === null) break; // it was cut short meanwhile
      filled += count;
    }
    const digest = createHash("sha256").update(bytes).digest("hex");
    return `${info.size} bytes, SHA-256 ${digest.slice(0, 8)}…`;
  } catch {
    return `${info.size} bytes, unreadable`;
  }
};
