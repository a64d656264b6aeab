import { join } from "node:path";
import { Effect, Option, Stream } from "effect";
import { Argument, Command } from "effect/cli";
import { UsageError } from "./flags/usage_error.ts";
import { testFlags } from "./launch/permissions.ts";
import { filesOfTests, testFiles } from "./launch/test_files.ts";

export const test = Command.make(
  "test",
  {
    filter: Argument.String("filter").pipe(
      Argument.withDescription("run only the tests whose names contain this, or match this /expression/"),
      Argument.optional,
    ),
  },
  Effect.fn(function* ({ filter }) {
    const files = yield* Effect.try({
      try: () => Option.isNone(filter) ? filesOfTests(ROOT, "") : testFiles(ROOT, filter.value),
      catch: (error) => new UsageError({ subject: "FILTER", reason: (error as SyntaxError).message }),
    });
    if (Option.isSome(filter) && files.length === 0) return yield* noneMatches(filter.value);
    const run = (files: readonly string[]) => Effect.scoped(runTests(Option.getOrNull(filter), files));
    const [alone, others] = [true, false].map((wanted) => files.filter((file) => ALONE.has(file) === wanted));
    const counts = [
      ...yield* Effect.forEach(portions(others), run, { concurrency: PROCESSES }),
      ...yield* Effect.forEach(portions(alone), run),
    ];
    const total = (count: (of: Counts) => number) => counts.reduce((sum, of) => sum + count(of), 0);
    const passed = total((of) => of.passed), failed = total((of) => of.failed);
    const skipped = counts.flatMap((of) => of.skipped);
    if (skipped.length > 0) console.log(["Skipped:", ...skipped.map((name) => `  ${name}`), ""].join("\n"));
    console.log(
      `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`,
    );
    if (passed + failed + skipped.length === 0 && Option.isSome(filter)) {
      return yield* noneMatches(filter.value);
    }
    Deno.exitCode = failed === 0 && passed > 0 ? 0 : 1;
  }),
).pipe(
  Command.withDescription(
    "Run the project's tests, two files at a time. Tests that this machine cannot run are skipped and named with the " +
      "reason at the end; the last line counts all.",
  ),
  Command.withShortDescription("Run the project's tests"),
  Command.withExamples([
    { command: "slotcon test", description: "Run all tests" },
    { command: "slotcon test 'learningRate()'", description: "Run the tests of one function" },
  ]),
);

const ROOT = join(import.meta.dirname!, "..");

const noneMatches = (filter: string) => {
  const where = /^\/.*\/$/s.test(filter) ? `matches ${filter}` : `has "${filter}" in its name`;
  return Effect.fail(new UsageError({ subject: "FILTER", reason: `no test ${where}` }));
};

/** Processes of tests at a time: some tests keep one core busy, others wait for processes that they start. */
const PROCESSES = 2;

/** Files whose tests hold times that a user waits for against limits: these have the machine to themselves. */
const ALONE: ReadonlySet<string> = new Set(["cli/watch/page_test.ts"]);

/** Files that one process of tests runs, at most: whoever is done first takes the next portion. */
const PORTION = 25;

const portions = (files: readonly string[]): string[][] =>
  Array.from(
    { length: Math.ceil(files.length / PORTION) },
    (_, i) => files.slice(PORTION * i, PORTION * (i + 1)),
  );

/** Runs the tests of files, prints what is said of each file at the end of it, and counts them. */
const runTests = Effect.fnUntraced(function* (filter: string | null, files: readonly string[]) {
  const child = yield* denoTest(filter, files);
  const lines: string[] = [];
  let ofFile: string[] = [];
  const print = () => {
    if (ofFile.length > 0) console.log(ofFile.join("\n"));
    ofFile = [];
  };
  yield* Stream.fromReadableStream({ evaluate: () => child.stdout, onError: (error) => error as Error }).pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) =>
      Effect.sync(() => {
        lines.push(withoutColors(line));
        if (/^running \d+ tests? from /.test(lines.at(-1)!)) print();
        ofFile.push(line);
      })
    ),
    Effect.orDie,
  );
  print();
  return countTests(lines, (yield* Effect.promise(() => child.status)).code);
});

/** Starts the tests of files as another process with permissions of its own; it is killed at the end of the scope. */
const denoTest = (filter: string | null, files: readonly string[]) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      new Deno.Command(Deno.execPath(), {
        args: [
          ...[
            "test",
            "--no-prompt",
            "--cached-only",
            "--frozen",
            "--no-check",
            "--ignore-env",
            ...testFlags(),
          ],
          ...filter === null ? [] : ["--filter", filter],
          ...files,
        ],
        cwd: ROOT,
        env: Deno.stdout.isTerminal() ? { FORCE_COLOR: "1" } : { NO_COLOR: "1" },
        stdin: "null",
        stdout: "piped",
      }).spawn()
    ),
    (child) =>
      Effect.sync(() => {
        try {
          child.kill();
        } catch {
          // it has already ended
        }
      }),
  );

// deno-lint-ignore no-control-regex
const withoutColors = (line: string) => line.replace(/\x1b\[[0-9;]*m/g, "");

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: readonly string[];
}

/** Counts tests by the output of `deno test`. A failing exit status without a failed test counts as one failure. */
export const countTests = (lines: readonly string[], code: number): Counts => {
  const summary = lines.findLast((line) => /^(ok|FAILED) \| /.test(line)) ?? "";
  const count = (what: string) => Number(summary.match(new RegExp(`(\\d+) ${what}`))?.[1] ?? 0);
  const failed = count("failed");
  return {
    passed: count("passed"),
    failed: code !== 0 && failed === 0 ? 1 : failed,
    skipped: lines.flatMap((line) => line.match(/^(.*) \.\.\. ignored/)?.[1] ?? []),
  };
};
