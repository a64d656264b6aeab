/** The output of an evaluation: a JSON file with all numbers, and a page with images beside it. */
import { basename, dirname, extname, join } from "node:path";
import { Console, Effect, Layer, Option } from "effect";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import { EvaluationProgress } from "../../pipeline/eval/progress.ts";
import { duration } from "../../pipeline/run/progress.ts";
import { UsageError } from "../flags/usage_error.ts";
import { progressLine } from "../terminal/progress_line.ts";
import { voice } from "../terminal/voice.ts";
import { layerWarnings } from "../terminal/warnings.ts";

export interface OutputFiles {
  readonly json: string;
  readonly page: string;
}

/**
 * The files of an evaluation; without `--output` they are in the folder "evaluations" beside the checkpoint. Fails if they
 * cannot be written, so that this is known before hours of work.
 */
export const outputFiles = Effect.fnUntraced(
  function* (output: Option.Option<string>, checkpoint: string, kind: string) {
    const folder = join(dirname(checkpoint), "evaluations");
    const json = Option.getOrElse(
      output,
      () => join(folder, `${basename(checkpoint, extname(checkpoint))}.${kind}.json`),
    );
    if (extname(json) !== ".json") {
      const reason = `expected a file named *.json, found "${json}"`;
      return yield* new UsageError({ subject: "--output", reason });
    }
    yield* Effect.try({
      try: () => {
        if (Option.isNone(output)) Deno.mkdirSync(folder, { recursive: true });
        Deno.openSync(`${json}.partial`, { write: true, create: true }).close();
        Deno.removeSync(`${json}.partial`);
      },
      catch: (error) => cannotWrite(json, error as Error),
    });
    return { json, page: json.replace(/\.json$/, ".html") } satisfies OutputFiles as OutputFiles;
  },
);

const cannotWrite = (file: string, { message }: { readonly message: string }) =>
  new UsageError({
    subject: "--output",
    reason: `cannot write "${file}": ${message}`,
    remedy: "name another file",
  });

/** How many pictures are left out, for the end of a sentence. */
export const andLeftOut = (leftOut: readonly string[]): string =>
  leftOut.length === 0
    ? ""
    : `; ${leftOut.length} cannot be decoded and ${leftOut.length === 1 ? "is" : "are"} left out`;

/** Writes both files and says where they are. */
export const writeEvaluation = Effect.fnUntraced(
  function* ({ json, page }: OutputFiles, numbers: unknown, html: string) {
    const contents = [[json, `${JSON.stringify(numbers, null, 2)}\n`], [page, html]];
    for (const [file, text] of contents) {
      yield* writeWholeFile(file, [new TextEncoder().encode(text)]).pipe(
        Effect.mapError((error) => cannotWrite(file, error)),
      );
    }
    yield* Console.log(
      `\n  ${json}\n      all numbers\n  ${page}\n      the same with pictures: open it in a browser`,
    );
  },
);

/** Shows the progress of an evaluation on a terminal, how long its stage still takes, and warnings. */
export const layerProgress: Layer.Layer<never> = Layer.unwrap(
  Effect.gen(function* () {
    const line = progressLine();
    let stage = "", began = 0;
    yield* Effect.addFinalizer(() => Effect.sync(line.clear));
    const progress = (now: string, done: number, total: number) =>
      Effect.sync(() => {
        if (now !== stage) {
          [stage, began] = [now, performance.now()];
          line.clear();
        }
        voice.doing(`${stage}, ${done} of ${total}`);
        const seconds = (performance.now() - began) / 1000;
        const left = done === 0 ? "" : `  ${duration(seconds / done * (total - done))} left`;
        line.show(`${stage}  ${done}/${total}${left}`.slice(0, 120));
      });
    return Layer.merge(Layer.succeed(EvaluationProgress, progress), layerWarnings(line));
  }),
);
