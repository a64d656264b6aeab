import { join } from "node:path";
import { Effect, Option, Stream } from "effect";
import { Argument, Command } from "effect/cli";
import { testFlags } from "./launch/permissions.ts";

export const test = Command.make(
  "test",
  {
    filter: Argument.String("filter").pipe(
      Argument.withDescription("run only the tests whose names contain this, or match this /expression/"),
      Argument.optional,
    ),
  },
  Effect.fn(function* ({ filter }) {
    const child = yield* denoTest(Option.getOrNull(filter));
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

/** The tests in a process of their own, with permissions of their own; it ends with the scope. */
const denoTest = (filter: string | null) =>
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
        ],
        cwd: join(import.meta.dirname!, ".."),
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
          // it has ended already
        }
      }),
  );

// deno-lint-ignore no-control-regex
const withoutColors = (line: string) => line.replace(/\x1b\[[0-9;]*m/g, "");

/** What the output of `deno test` says; a run that ends badly without a count, or in spite of it, counts as a failure. */
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
