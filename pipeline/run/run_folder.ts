/**
 * The folder of a run: `log.txt`, `metrics.jsonl`, `times.jsonl`, `config.json`, `plan.json`, `run.json`,
 * `tensorboard/`. Its `checkpoints/` are written elsewhere (checkpoint_file.ts).
 */
import { join } from "node:path";
import { Data, Effect, Logger, type Scope } from "effect";
import { type AppendFile, openAppendFile } from "../../data/files/append_file.ts";
import { exists, statOf } from "../../data/files/exists.ts";
import { printableText } from "../../data/files/printable.ts";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { EncodedPicture } from "../../data/formats/tfevents.ts";
import type { RunConfig } from "./options.ts";
import { added, type Seconds } from "./phase_timer.ts";
import { isPrinted, metricsLine, type RunPlan, stepLine, type StepReport } from "./progress.ts";
import {
  type Ending,
  type FolderInUseError,
  type FolderLock,
  folderLock,
  STATUS_FILE,
} from "./run_status.ts";
import { withoutFlags } from "../../data/files/regular_file.ts";
import { openTensorBoard } from "./tensorboard.ts";

/** A file of a run's folder cannot be written. */
export class RunFolderError extends Data.Error<{
  readonly subject: string;
  readonly reason: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "RunFolderError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `Cannot write "${this.subject}": ${this.reason}; choose another --output-dir, or mend this one`;
  }
}

/** The folder of a run that is under way. Its functions fail with a `RunFolderError` where a file cannot be written. */
export interface RunFolder {
  /**
   * Adds a line to `metrics.jsonl` and its numbers to `tensorboard/`, and every `printFreq` steps a line to `log.txt`,
   * and one to `times.jsonl` that says where the seconds went. While the disk is full, lines wait in memory.
   */
  readonly record: (report: StepReport) => Effect.Effect<void, RunFolderError>;
  /** Adds images of the state after `done` steps to `tensorboard/`, by name. Drops them while the disk is full. */
  readonly images: (
    done: number,
    images: ReadonlyMap<string, EncodedPicture>,
  ) => Effect.Effect<void, RunFolderError>;
  /**
   * Brings all lines onto the disk: before a checkpoint, lest a power cut takes lines that the run will not compute
   * again. Fails while the disk is full.
   */
  readonly flush: Effect.Effect<void, RunFolderError>;
  /** Adds log messages to `log.txt`. */
  readonly logger: Logger.Logger<unknown, void>;
  /** Records in `run.json` how the run ended, and in `log.txt` why it failed. */
  readonly ended: (ending: Ending) => Effect.Effect<void>;
}

/**
 * What a run does with the run that its folder holds already. It goes on with that `run`, as if it had never stopped;
 * or with its `state` alone, since its steps count otherwise, as those of another batch size do; or with `nothing` of
 * it. What it does not go on with is put aside, into a folder `before.1` or the next number that is free.
 */
export type GoesOnWith = "run" | "state" | "nothing";

/** How to open the folder of a run. */
export interface Opening {
  /** What the run does with an earlier one in its folder; if not given, it goes on with it after the first step. */
  readonly goesOnWith?: GoesOnWith;
  /** The lock of the folder; if not given, it is taken for as long as the folder is open. */
  readonly lock?: FolderLock;
}

/**
 * Opens the folder of a run until the scope ends, and writes `config.json` and `plan.json` into it. The metrics of a
 * resumed run go on after its first step, as if it had never stopped; another run in this folder is put aside. Fails
 * with a `RunFolderError` where a file cannot be written, and with a `FolderInUseError` where another process is
 * writing into the folder.
 */
export const openRunFolder: (
  config: Pick<RunConfig, "outputDir" | "tensorboard">,
  plan: RunPlan,
  opening?: Opening,
) => Effect.Effect<RunFolder, RunFolderError | FolderInUseError, Scope.Scope> = Effect.fn("openRunFolder")(
  function* (config, plan, opening = {}) {
    const { outputDir } = config;
    const [configFile, planFile, metricsFile, timesFile, logFile, boardFolder] = [
      ...["config.json", "plan.json", "metrics.jsonl", "times.jsonl", "log.txt", "tensorboard"],
    ].map((name) => join(outputDir, name));

    yield* attempt(outputDir, () => Deno.mkdirSync(outputDir, { recursive: true }));
    const lock = opening.lock ?? (yield* lockOf(outputDir));
    yield* taken(lock, outputDir);
    const goesOnWith = opening.goesOnWith ?? (plan.firstStep === 0 ? "nothing" : "run");
    const before = goesOnWith === "run"
      ? null
      : yield* attempt(outputDir, () => putAside(outputDir, goesOnWith));
    lock.begin();
    for (const [file, content] of [[configFile, config], [planFile, plan]] as const) {
      yield* writeWholeFile(file, [encode(`${JSON.stringify(content, null, 2)}\n`)]).pipe(
        Effect.mapError(({ message }) => new RunFolderError({ subject: file, reason: message })),
      );
    }
    for (const file of [metricsFile, timesFile]) {
      yield* attempt(file, () => keepLinesBefore(plan.firstStep, file));
    }
    const metrics = yield* opened(metricsFile, () => openAppendFile(metricsFile));
    const times = yield* opened(timesFile, () => openAppendFile(timesFile));
    const log = yield* opened(logFile, () => openAppendFile(logFile));
    const logLine = lineLog(log);
    if (before !== null) {
      const words = goesOnWith === "nothing"
        ? `"${outputDir}" had another run, which is in "${before}" now; --auto-resume would have gone on with it`
        : `The log and the metrics so far, whose steps count otherwise, are in "${before}" now`;
      yield* Effect.logWarning(words);
      logLine(`Warn: ${words}`);
    }
    const board = config.tensorboard
      ? yield* opened(boardFolder, () => openTensorBoard(boardFolder, { ...config }, plan.firstStep))
      : null;

    let full = false; // whether a warning has been logged
    let seconds: Seconds[] = [];
    const starving = watchForStarving();
    return {
      record: Effect.fnUntraced(function* (report: StepReport) {
        const line = metricsLine(report);
        seconds.push(report.seconds);
        yield* attempt(metricsFile, () => {
          metrics.add(encode(`${JSON.stringify(line)}\n`));
          if (isPrinted(report.step, plan)) logLine(stepLine(report, plan));
          if (isPrinted(report.step, plan) || report.step + 1 === plan.lastStep) {
            const { step } = report;
            times.add(encode(`${JSON.stringify({ step, steps: seconds.length, ...added(seconds) })}\n`));
            seconds = [];
          }
        });
        if (board !== null) {
          const { step, ...numbers } = line;
          yield* attempt(boardFolder, () => board.numbers(step, numbers));
        }
        if (starving(report.seconds)) yield* Effect.logWarning(STARVING);
        if (metrics.waits() && !full) {
          yield* Effect.logWarning(`${outputDir}: the disk is full; the run goes on`);
        }
        full = metrics.waits();
      }),
      images: (done, images) =>
        board === null ? Effect.void : attempt(boardFolder, () => board.images(done, images)),
      flush: attempt(metricsFile, () => {
        metrics.sync();
        times.sync();
        log.sync();
        board?.sync();
      }),
      logger: loggerTo(logLine),
      ended: (ending) =>
        Effect.sync(() => {
          if (ending.kind === "failed") logLine(`Error: ${ending.reason}`);
          lock.end(ending);
        }),
    } satisfies RunFolder as RunFolder;
  },
);

/**
 * The lock of the folder of a run until the scope ends (run_status.ts). Fails with a `RunFolderError` where its file
 * cannot be written.
 */
export const lockOf = (
  outputDir: string,
): Effect.Effect<FolderLock, FolderInUseError | RunFolderError, Scope.Scope> =>
  writable(outputDir, folderLock(outputDir));

const taken = (lock: FolderLock, outputDir: string) => writable(outputDir, lock.take);

const writable = <A, E, R>(outputDir: string, effect: Effect.Effect<A, E, R>) =>
  Effect.catchDefect(
    effect,
    (error) =>
      Effect.fail(
        new RunFolderError({ subject: join(outputDir, STATUS_FILE), reason: withoutFlags(error).message }),
      ),
  );

/**
 * The largest share of a run's time that may go into waiting for images: without its first steps, and over some
 * seconds.
 */
const WAITING = { most: 0.02, after: 20, over: 60 };

const STARVING =
  `More than ${100 * WAITING.most} % of the time goes into waiting for pictures, as times.jsonl shows: ` +
  "raise --num-workers, make the files smaller, or move them to a faster disk";

/** A function that takes the time of every step, and returns true once, when the device waits for images too long. */
const watchForStarving = () => {
  let steps = 0, all = 0, waiting = 0, warned = false;
  return ({ host }: Seconds): boolean => {
    if (steps++ < WAITING.after) return false;
    waiting += host.decode;
    all += Object.values(host).reduce((sum, part) => sum + part);
    const warn = !warned && all > WAITING.over && waiting > WAITING.most * all;
    warned ||= warn;
    return warn;
  };
};

/** A function that adds a line of text to a file, behind the time. */
const lineLog = (file: AppendFile) => (text: string) =>
  file.add(encode(`${timestamp(new Date())} ${printableText(text)}\n`));

const loggerTo = (line: (text: string) => void) =>
  Logger.make(({ logLevel, message }) => {
    const words = [message].flat().map(String).join(" ");
    line(logLevel === "Info" ? words : `${logLevel}: ${words}`);
  });

/**
 * The part of a run's folder that ranks other than 0 have until the scope ends: `log.rank1.txt` for their log
 * messages. Rank 0 records for all. Fails with a `RunFolderError` where the file cannot be written.
 */
export const openRankFolder: (
  config: Pick<RunConfig, "outputDir">,
  rank: number,
) => Effect.Effect<RunFolder, RunFolderError, Scope.Scope> = Effect.fn("openRankFolder")(function* (
  { outputDir },
  rank,
) {
  const file = join(outputDir, `log.rank${rank}.txt`);
  yield* attempt(outputDir, () => Deno.mkdirSync(outputDir, { recursive: true }));
  const log = yield* opened(file, () => openAppendFile(file));
  return {
    record: () => Effect.void,
    images: () => Effect.void,
    flush: Effect.void,
    logger: loggerTo(lineLog(log)),
    ended: () => Effect.void,
  } satisfies RunFolder as RunFolder;
});

/** Drops the lines of `step` and later steps, which the run will compute again, and a last line that was cut short. */
const keepLinesBefore = (step: number, file: string) => {
  if (!exists(file)) return;
  const lines = Deno.readTextFileSync(file).split("\n").filter((line) => stepOf(line) < step);
  Deno.writeTextFileSync(`${file}.partial`, lines.map((line) => `${line}\n`).join(""));
  Deno.renameSync(`${file}.partial`, file);
};

/** What belongs to a run in its folder, besides `checkpoints` and `run.json`. */
const OF_RUN = new RegExp(
  "^(log(\\.rank\\d+)?\\.txt|(metrics|times)(\\.\\d+)?\\.jsonl|(config|plan|trace)\\.json|tensorboard|slot_maps|predictions|" +
    "report\\.html|slots\\.png)$",
);

/**
 * Moves the run in a folder, if it has done anything, into the folder `before.1` or the next number that is free: all
 * of it, or all but its checkpoints where a run goes on with the state. Returns that folder; null where nothing is
 * moved.
 */
const putAside = (outputDir: string, goesOnWith: GoesOnWith): string | null => {
  const at = (...names: string[]) => join(outputDir, ...names);
  const hasMetrics = (statOf(at("metrics.jsonl"))?.size ?? 0) > 0;
  const hasCheckpoints = statOf(at("checkpoints"))?.isDirectory === true &&
    Deno.readDirSync(at("checkpoints"))[Symbol.iterator]().next().done === false;
  if (!hasMetrics && !hasCheckpoints) return null;
  const names = Array.from(Deno.readDirSync(outputDir), ({ name }) => name).filter((name) =>
    OF_RUN.test(name) || name === "checkpoints" && goesOnWith === "nothing"
  );
  if (names.length === 0) return null;
  let number = 1;
  while (exists(at(`before.${number}`))) number++;
  const before = at(`before.${number}`);
  Deno.mkdirSync(before);
  if (exists(at(STATUS_FILE))) Deno.copyFileSync(at(STATUS_FILE), join(before, STATUS_FILE)); // that one is locked
  for (const name of names) Deno.renameSync(at(name), join(before, name));
  return before;
};

const stepOf = (line: string): number => {
  try {
    return JSON.parse(line).step;
  } catch {
    return Infinity;
  }
};

const attempt = <A>(file: string, work: () => A) =>
  Effect.try({
    try: work,
    catch: (error) => new RunFolderError({ subject: file, reason: withoutFlags(error).message }),
  });

/** Opens something that is closed when the scope ends. */
const opened = <A extends Disposable>(file: string, open: () => A) =>
  Effect.acquireRelease(attempt(file, open), (it) => Effect.sync(() => it[Symbol.dispose]()));

const timestamp = (date: Date) => date.toISOString().slice(0, 19).replace("T", " ");

const encode = (text: string) => new TextEncoder().encode(text);
