import { Cause } from "effect";
import { CliError } from "effect/cli";
import { match, P } from "ts-pattern";

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
    .with({ _tag: P.string, message: P.string }, ({ message }) => message)
    .otherwise(() =>
      `This is a mistake of ours, please report it with the command you ran:\n${Cause.pretty(cause)}`
    );
};
