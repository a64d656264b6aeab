/** Loss curves that were recorded elsewhere, for example by a PyTorch run, to be drawn beside those of runs. */
import { basename, extname } from "node:path";
import { Effect } from "effect";
import { bytesInMemory } from "../../data/files/byte_source.ts";
import { printable } from "../../data/files/printable.ts";
import { widened } from "../../data/formats/file_tensor.ts";
import { openSafetensors } from "../../data/formats/safetensors.ts";
import { UsageError } from "../flags/usage_error.ts";

export interface RecordedCurve {
  readonly name: string;
  readonly steps: Float64Array; // ascending
  readonly loss: Float64Array;
}

const LARGEST = 2 ** 28; // bytes

const problemOf = (error: unknown): string =>
  error instanceof Deno.errors.NotFound
    ? "there is no such file"
    : error instanceof Deno.errors.PermissionDenied
    ? "this user may not read it"
    : (error as Error).message.split(",")[0];

type Point = readonly [step: number, loss: number];

/**
 * Reads a curve: JSON lines or a JSON array of objects with `step` and `loss`, a JSON object of two such arrays, CSV with
 * two such columns (or TensorBoard's `Step` and `Value`), or a recording of steps in safetensors (testdata/steps). Fails
 * with a `UsageError` where the file holds no step with a loss.
 */
export const readCurve = Effect.fn("readCurve")(
  function* (file: string): Effect.fn.Return<RecordedCurve, UsageError> {
    const refuse = (reason: string) => noCurve(file, reason);
    const found = yield* Effect.tryPromise({
      try: () => Deno.stat(file),
      catch: (error) => refuse(problemOf(error)),
    });
    if (!found.isFile) {
      return yield* refuse(found.isDirectory ? "it is a folder" : "it is no file but a pipe or a device");
    }
    if (found.size > LARGEST) {
      return yield* refuse(`it has ${found.size} bytes, which are more than ${LARGEST}`);
    }
    const bytes = yield* Effect.tryPromise({
      try: () => Deno.readFile(file),
      catch: (error) => refuse(problemOf(error)),
    });
    const points = extname(file) === ".safetensors"
      ? yield* ofRecording(bytes, file)
      : ofText(new TextDecoder().decode(bytes));
    const good = points.filter(([step, loss]) => Math.abs(step) <= 1e9 && Math.abs(loss) <= 1e30)
      .sort(([a], [b]) => a - b);
    if (good.length === 0) return yield* refuse("it holds no step with a loss");
    return {
      name: printable(basename(file)),
      steps: Float64Array.from(good, ([step]) => step),
      loss: Float64Array.from(good, ([, loss]) => loss),
    };
  },
);

const noCurve = (file: string, reason: string) =>
  new UsageError({
    subject: `--overlay "${printable(file)}"`,
    reason:
      `${reason}; expected steps and losses as a metrics.jsonl, as CSV or JSON with "step" and "loss", or as a ` +
      "recording of training steps",
  });

const ofText = (text: string): Point[] => {
  const whole = parsed(text);
  if (whole !== undefined) return ofJson(whole);
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  return lines[0]?.trimStart().startsWith("{") ? lines.flatMap((line) => ofJson(parsed(line))) : ofCsv(lines);
};

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
};

const ofJson = (json: unknown): Point[] => Array.isArray(json) ? json.flatMap(ofObject) : ofObject(json);

const ofObject = (json: unknown): Point[] => {
  const { step, loss } = (json ?? {}) as { step?: unknown; loss?: unknown };
  if (Array.isArray(step) && Array.isArray(loss)) {
    return step.map((each, i) => [Number(each), Number(loss[i] ?? NaN)]);
  }
  return typeof step === "number" && typeof loss === "number" ? [[step, loss]] : [];
};

const ofCsv = ([header = "", ...rows]: readonly string[]): Point[] => {
  const cells = (line: string) => line.split(/[,;\t]/).map((cell) => cell.trim().replace(/^"(.*)"$/, "$1"));
  const names = cells(header.toLowerCase());
  const step = names.indexOf("step");
  const loss = names.includes("loss") ? names.indexOf("loss") : names.indexOf("value");
  if (step < 0 || loss < 0) return [];
  return rows.map(cells).filter((row) => row[step] !== "" && row[loss] !== "")
    .map((row) => [Number(row[step]), Number(row[loss])]);
};

const ofRecording = Effect.fnUntraced(function* (bytes: Uint8Array<ArrayBuffer>, file: string) {
  const points: Point[] = [];
  yield* Effect.gen(function* () {
    const { tensors } = yield* openSafetensors(bytesInMemory(file, bytes));
    for (const [name, { dtype, values }] of tensors) {
      const step = name.match(/^step(\d+)\/expect\/loss$/)?.[1];
      if (step !== undefined) points.push([Number(step), widened(dtype, yield* values)[0]]);
    }
  }).pipe(Effect.mapError(({ reason }) => noCurve(file, reason)));
  return points;
});
