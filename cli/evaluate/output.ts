/** Where an evaluation goes: a table on the terminal, numbers in a JSON file, a page with pictures beside it. */
import { basename, dirname, extname, join } from "node:path";
import { Console, Effect, Layer, Option, Schema } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { EvaluationProgress } from "../../pipeline/eval/progress.ts";
import { duration } from "../../pipeline/run/progress.ts";
import { EvaluationFlagError } from "./options.ts";

/** An evaluation cannot be written. */
export class EvaluationOutputError
  extends Schema.TaggedError<EvaluationOutputError>()("EvaluationOutputError", {
    file: Schema.String,
    reason: Schema.String,
  }) {
  override get message() {
    return `Cannot write "${this.file}": ${this.reason}; name another file by --output`;
  }
}

export interface OutputFiles {
  readonly json: string;
  readonly page: string;
}

/**
 * The files of an evaluation; without `--output` they are in the folder "evaluations" beside the checkpoint. Fails at once
 * where they cannot be written, not when hours of work are done.
 */
export const outputFiles = Effect.fnUntraced(
  function* (output: Option.Option<string>, checkpoint: string, kind: string) {
    const folder = join(dirname(checkpoint), "evaluations");
    const json = Option.getOrElse(
      output,
      () => join(folder, `${basename(checkpoint, extname(checkpoint))}.${kind}.json`),
    );
    if (extname(json) !== ".json") {
      const expected = "a file named *.json";
      return yield* new EvaluationFlagError({ flag: "--output", expected, found: `"${json}"` });
    }
    yield* Effect.try({
      try: () => {
        if (Option.isNone(output)) Deno.mkdirSync(folder, { recursive: true });
        Deno.openSync(`${json}.partial`, { write: true, create: true }).close();
        Deno.removeSync(`${json}.partial`);
      },
      catch: (error) => new EvaluationOutputError({ file: json, reason: (error as Error).message }),
    });
    return { json, page: json.replace(/\.json$/, ".html") } satisfies OutputFiles as OutputFiles;
  },
);

/** Writes both files and says where they are. */
export const writeEvaluation = Effect.fnUntraced(
  function* ({ json, page }: OutputFiles, numbers: unknown, html: string) {
    const contents = [[json, `${JSON.stringify(numbers, null, 2)}\n`], [page, html]];
    for (const [file, text] of contents) {
      yield* writeWholeFile(file, [new TextEncoder().encode(text)]).pipe(
        Effect.mapError(({ message }) => new EvaluationOutputError({ file, reason: message })),
      );
    }
    yield* Console.log(
      `\n  ${json}\n      all numbers\n  ${page}\n      the same with pictures: open it in a browser`,
    );
  },
);

const REDRAW_MS = 100;
const CLEAR_LINE = "\r\x1b[K";

/** Shows how far an evaluation is, on standard error where that is a terminal. */
export const layerProgress: Layer.Layer<never> = Deno.stderr.isTerminal()
  ? Layer.effect(
    EvaluationProgress,
    Effect.gen(function* () {
      const write = (text: string) => Deno.stderr.writeSync(new TextEncoder().encode(text));
      let stage = "", began = 0, drawn = -Infinity;
      yield* Effect.addFinalizer(() => Effect.sync(() => write(CLEAR_LINE)));
      return (now: string, done: number, total: number) =>
        Effect.sync(() => {
          const time = performance.now();
          if (now !== stage) [stage, began, drawn] = [now, time, -Infinity];
          if (time - drawn < REDRAW_MS) return;
          drawn = time;
          const left = done === 0 ? "" : `  ${duration((time - began) / done * (total - done) / 1000)} left`;
          write(`${CLEAR_LINE}${stage}  ${done}/${total}${left}`.slice(0, 120));
        });
    }),
  )
  : Layer.empty;
