/** What is wrong with a command line, and checks of numbers on it. */
import { Data, Effect } from "effect";

/** A flag or operand cannot be meant as it is given. */
export class UsageError extends Data.Error<{
  readonly subject: string; // "--batch-size", or an operand in capitals as in the help
  readonly reason: string;
  readonly remedy?: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "UsageError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return [this.subject, this.reason, ...this.remedy === undefined ? [] : [this.remedy]].join(": ");
  }
}

/** Fails with a `UsageError` where an argument of a command line is empty: no command has a use for one, least of all as a path. */
export const expectNoneEmpty = (args: readonly string[]): Effect.Effect<void, UsageError> => {
  const empty = args.findIndex((arg) => /^(--[^=]+=)?$/.test(arg));
  if (empty === -1) return Effect.void;
  const subject = args[empty] === ""
    ? `the argument behind "${args[empty - 1] ?? "slotcon"}"`
    : args[empty].slice(0, -1);
  return Effect.fail(new UsageError({ subject, reason: "expected a value, found nothing" }));
};

/** Fails with a `UsageError` unless each of these flags is unset or within its bounds, which count as inside. */
export const expectWithin = Effect.fnUntraced(function* (
  flags: Readonly<Record<string, readonly [value: number | null, least: number, most?: number]>>,
): Effect.fn.Return<void, UsageError> {
  for (const [flag, [value, least, most = Infinity]] of Object.entries(flags)) {
    if (value === null || value >= least && value <= most) continue;
    const bounds = most === Infinity ? `at least ${least}` : `${least} to ${most}`;
    return yield* new UsageError({ subject: `--${flag}`, reason: `expected ${bounds}, found ${value}` });
  }
});
