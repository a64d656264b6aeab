import { join } from "node:path";
import { Effect, Option, Stream } from "effect";
import { Argument, Command } from "effect/cli";
import { UsageError } from "./flags/usage_error.ts";
import { testFlags } from "./launch/permissions.ts";
import { testFiles } from "./launch/test_files.ts";

export const test = Command.make(
  "test",
  {
    filter: Argument.String("filter").pipe(
      Argument.withDescription("run only the tests whose names contain this, or match this /expression/"),
      Argument.optional,
    ),
  },
  Effect.fn(function* ({ filter }) {
    const files = Option.isNone(filter) ? [] : yield* Effect.try({
      try: () => testFiles(ROOT, filter.value),
      catch: (error) => new UsageError({ subject: "FILTER", reason: (error as SyntaxError).message }),
    });
    if (Option.isSome(filter) && files.length === 0) return yield* noneMatches(filter.value);
    const child = yield* denoTest(Option.getOrNull(filter), files);
    const lines: string[] = [];
    yield* Stream.fromReadableStream({ evaluate: () => child.stdout, onError: (error) => error as Error })
      .pipe(
        Stream.tap((bytes) => Effect.sync(() => Deno.stdout.writeSync(bytes))),
        Stream.decodeText(),
        Stream.splitLines,
        Stream.runForEach((line) => Effect.sync(() => lines.push(withoutColors(line)))),
        Effect.orDie,
      );
    const { code } = yield* Effect.promise(() => child.status);
    const { passed, failed, skipped } = countTests(lines, code);
    if (skipped.length > 0) console.log(["Skipped:", ...skipped.map((name) => `  ${name}`), ""].join("\n"));
    console.log(
      `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`,
    );
    if (passed + failed + skipped.length === 0 && Option.isSome(filter)) {
      return yield* noneMatches(filter.value);
    }
    Deno.exitCode = code === 0 && passed > 0 ? 0 : 1;
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Run the project's tests, one after the other. Tests that this machine cannot run are skipped and named with the " +
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

/**
 * Starts the tests as another process with permissions of its own; it is killed at the end of the scope. Without `files`
 * all are loaded.
 */
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

/** Counts tests by the output of `deno test`. A failing exit status without a failed test counts as one failure. */
export const countTests = (lines: readonly string[], code: number) => {
  const summary = lines.findLast((line) => /^(ok|FAILED) \| /.test(line)) ?? "";
  const count = (what: string) => Number(summary.match(new RegExp(`(\\d+) ${what}`))?.[1] ?? 0);
  const failed = count("failed");
  return {
    passed: count("passed"),
    failed: code !== 0 && failed === 0 ? 1 : failed,
    skipped: lines.flatMap((line) => line.match(/^(.*) \.\.\. ignored/)?.[1] ?? []),
  };
};
