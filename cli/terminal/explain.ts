import { Cause } from "effect";
import { CliError } from "effect/cli";
import { match, P } from "ts-pattern";
import { PlanError } from "../../ops/compiler/limits.ts";
import { GpuError } from "../../ops/runtime/gpu.ts";
import { explained } from "../../pipeline/run/advice.ts";

/** What to tell the user about a command line that cannot be understood. */
export const explainUsage = (error: CliError.NonShowHelpErrors): string =>
  match(error)
    .with({ _tag: "UnrecognizedOption" }, ({ option, suggestions }) =>
      `there is no ${option}${meant(suggestions)}`)
    .with({ _tag: "UnknownSubcommand" }, ({ subcommand, suggestions }) =>
      `there is no command "${subcommand}"${meant(suggestions)}`)
    .with({ _tag: "InvalidValue" }, ({ kind, option, expected, value }) => {
      const where = kind === "flag" ? `--${option}` : option;
      const wanted = expected.replace(/^Expected:? /, "").replace(
        /a string representing (a|an) (finite )?/,
        "$1 ",
      );
      return `${where}: expected ${wanted}, found ${value === "" ? "nothing" : `"${value}"`}`;
    })
    .otherwise(({ message }) =>
      message.replace(/\s*\n\s*/g, " ")
    );

const meant = (suggestions: readonly string[]) =>
  suggestions.length === 0 ? "" : `; did you mean ${suggestions.join(" or ")}?`;

/** What to tell the user about a command that ended badly: a sentence or two, or null where all is said. */
export const explain = (cause: Cause.Cause<unknown>): string | null => {
  if (Cause.hasInterruptsOnly(cause)) return null;
  const error = Cause.squash(cause);
  return match(error)
    .when(CliError.isCliError, () => null) // the command line's parser has told it
    .with(
      P.instanceOf(Deno.errors.NotCapable),
      ({ message }) =>
        `${message.split(",")[0]}, which the options did not name: a command may touch only what they name`,
    )
    .with(
      { _tag: "ShapeError", message: P.string },
      ({ message }) => `${message}. Please report the command you ran`,
    )
    .with(P.union(P.instanceOf(GpuError), P.instanceOf(PlanError)), explained)
    .with({ _tag: P.string, message: P.string }, ({ message }) => message)
    .otherwise(() =>
      `This is a mistake of ours, please report it with the command you ran:\n${Cause.pretty(cause)}`
    );
};
