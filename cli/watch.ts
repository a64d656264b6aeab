import { Console, Effect } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { printable } from "../data/files/printable.ts";
import { UsageError } from "./flags/usage_error.ts";
import { readCurve } from "./watch/recorded_curve.ts";
import { LIMITED, watchedRuns } from "./watch/runs.ts";
import { LOCALHOST, serve } from "./watch/server.ts";

export const watch = Command.make(
  "watch",
  {
    runs: Argument.String("run").pipe(
      Argument.withDescription("folder of a run, or a folder with several"),
      Argument.atLeast(1),
    ),
    overlay: Flag.String("overlay").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription(
        "a recorded loss curve to draw beside them: metrics.jsonl, CSV or JSON of step and loss",
      ),
      Flag.atLeast(0),
    ),
    port: Flag.Int("port").pipe(
      Flag.withDescription("port to listen on (default: any that is free)"),
      Flag.withDefault(0),
    ),
    host: Flag.String("host").pipe(
      Flag.withDescription(
        "address or name of this machine to listen on; whoever can reach it sees the page, without a password",
      ),
      Flag.withDefault(LOCALHOST),
    ),
  },
  Effect.fn(function* ({ runs: named, overlay, port, host }) {
    const runs = watchedRuns(named);
    yield* Effect.promise(runs.find);
    if (runs.runs.length === 0) {
      return yield* new UsageError({
        subject: "RUN",
        reason: `there is no run in ${named.map((folder) => `"${printable(folder)}"`).join(", ")}`,
        remedy: "expected a folder that slotcon pretrain was given as --output-dir, or one with such folders",
      });
    }
    const curves = yield* Effect.forEach(overlay, readCurve);
    const { url, elsewhere } = yield* serve({ runs, curves }, { hostname: host, port });
    yield* Console.log(`Watching ${inWords(runs.runs.map(({ name }) => name))} on ${url}   (Ctrl-C ends it)`);
    if (runs.isLimited()) yield* Console.log(LIMITED);
    if (elsewhere.length > 0) {
      yield* Console.log(
        `Anyone who can reach this machine sees the runs there without a password, at ${
          elsewhere.join(" or ")
        }; ` +
          "without --host the page is for this machine alone",
      );
    }
    yield* Effect.never;
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Show runs on a web page, live or long after: losses, norms, rates, speed, where time and memory go, the use of " +
      "prototypes, and the slots of a few pictures as they change. The page is for this machine alone, and needs no internet.",
  ),
  Command.withShortDescription("Show runs on a live web page"),
  Command.withExamples([
    { command: "slotcon watch runs/coco", description: "One run, also while it trains" },
    {
      command: "slotcon watch runs --overlay pytorch.csv --port 8000",
      description: "All runs below a folder, beside a recorded curve",
    },
  ]),
);

const MOST_NAMES = 8;

const inWords = (names: readonly string[]) =>
  names.length <= MOST_NAMES
    ? names.join(", ")
    : `${names.slice(0, MOST_NAMES).join(", ")} and ${names.length - MOST_NAMES} more`;
