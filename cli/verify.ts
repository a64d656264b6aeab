import { basename, dirname, join, resolve } from "node:path";
import { Console, Effect, Layer, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { match } from "ts-pattern";
import type { FileTensor } from "../data/formats/file_tensor.ts";
import { writeSafetensors } from "../data/formats/safetensors.ts";
import type { Backend } from "../ops/graph/lowering.ts";
import type { Gpu } from "../ops/runtime/gpu.ts";
import { rankGpu } from "../pipeline/ranks/device.ts";
import { ranks } from "../pipeline/ranks/mpi.ts";
import { verifyAugment } from "../pipeline/verify/augment_recording.ts";
import { verifyEvaluation } from "../pipeline/verify/evaluation_recording.ts";
import { verifySegmentationInput } from "../pipeline/verify/segmentation_input_recording.ts";
import { verifyKnn } from "../pipeline/verify/knn_recording.ts";
import { verifyModels } from "../pipeline/verify/models_recording.ts";
import { openRecording, type Recording } from "../pipeline/verify/open_recording.ts";
import type { VerifyRow } from "../pipeline/verify/report.ts";
import { verifySchedule } from "../pipeline/verify/schedule_recording.ts";
import { verifySegmentationInference } from "../pipeline/verify/segmentation_inference_recording.ts";
import { verifySegmentationRates } from "../pipeline/verify/segmentation_rates_recording.ts";
import { verifySegmentationStep } from "../pipeline/verify/segmentation_step_recording.ts";
import { verifySegmentationSizes } from "../pipeline/verify/segmentation_sizes_recording.ts";
import { verifyStep } from "../pipeline/verify/step_recording.ts";
import { deviceFlag } from "./flags/common_flags.ts";
import { UsageError } from "./flags/usage_error.ts";
import { ownRank, startRanks, startsRanks } from "./launch/start_ranks.ts";
import { bold, green, red } from "./terminal/color.ts";
import { withoutFlags } from "../data/files/regular_file.ts";
import { doingNow, heardGpu } from "./terminal/doing.ts";

export const verify = Command.make(
  "verify",
  {
    recordings: Argument.String("recording").pipe(
      Argument.withDescription(
        "recorded steps, augmentation, retrieval, inference or label maps (safetensors), or schedules, sizes or models (JSON)",
      ),
      Argument.variadic({ min: 1 }),
    ),
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("print one JSON object instead of tables"),
      Flag.withDefault(false),
    ),
    out: Flag.String("out").pipe(
      Flag.withMetavar("FILE"),
      Flag.withDescription("safetensors file for all that was computed, under the recording's own names"),
      Flag.optional,
    ),
    device: deviceFlag,
    ranks: Flag.Int("ranks").pipe(
      Flag.withDescription(
        "processes to replay steps with: as many as were recorded, or for segmentation as many as divide the batch; one replays all in one",
      ),
      Flag.withDefault(1),
    ),
  },
  Effect.fn(function* ({ recordings, json, out, device, ranks }) {
    const target = Option.getOrNull(out);
    if (target !== null) yield* expectTarget(target, recordings);
    if (yield* startsRanks({ ranks })) return yield* startRanks(ranks);
    const isFirst = (ownRank ?? 0) === 0; // rank 0 prints for all

    const replay = yield* replayOn(device);
    const reports: Report[] = [];
    for (const recording of recordings) {
      const { report, outputs } = yield* Effect.catch(replay(recording), refused(recording));
      reports.push(report);
      if (isFirst && !json && "groups" in report) yield* Console.log(table(report));
      if (isFirst && target !== null && outputs !== null) yield* write(target, outputs, recording);
    }
    const holds = reports.every((report) => report.holds);
    if (isFirst && json) yield* Console.log(JSON.stringify({ holds, recordings: reports }, null, 2));
    Deno.exitCode = holds || !isFirst ? 0 : 1;
  }, (verified) => Effect.provide(Effect.scoped(verified), joined)),
).pipe(
  Command.withDescription(
    "Replay recordings of the reference implementation and compare everything that they hold: training steps, " +
      "augmentation (its pictures lie in pictures/ beside the recording), retrieval and schedules; of segmentation also " +
      "inference, input, evaluation, sizes and models. Prints the largest error of each group of tensors beside its " +
      "tolerance; the exit status is 0 only if all hold.",
  ),
  Command.withShortDescription("Compare with recordings of the reference implementation"),
  Command.withExamples([
    {
      command: "slotcon verify testdata/steps/resnet18_world2.safetensors",
      description: "Replay two training steps of two ranks",
    },
    {
      command: "slotcon verify testdata/{steps,augment,knn}/*.safetensors testdata/schedule/*.json --json",
      description: "Everything that comes with the project, for a program to read",
    },
    {
      command: "slotcon verify steps.safetensors --out computed.safetensors",
      description: "Keep what was computed, to compare it elsewhere",
    },
  ]),
);

/** The outcome of one recording. */
type Report = Replayed | Refused;

interface Replayed {
  readonly file: string;
  readonly kind: Recording["kind"];
  readonly holds: boolean;
  readonly seconds: number;
  readonly groups: readonly VerifyRow[];
}

interface Refused {
  readonly file: string;
  readonly holds: false;
  readonly error: string;
}

/** Joins the ranks that a launcher has started; does nothing in a process that is alone, or starts them. */
const joined = ranks({ watchdogMinutes: 10 });

/** A function that replays a recording; it opens the device when a recording first needs it. */
const replayOn = Effect.fnUntraced(function* (device: Backend) {
  const opened = yield* Effect.cached(Layer.build(heardGpu(rankGpu({ device, allowSharedDevice: true }))));
  const onDevice = <A, E>(effect: Effect.Effect<A, E, Gpu>) =>
    Effect.flatMap(opened, (context) => Effect.provide(effect, context));

  return Effect.fnUntraced(function* (file: string) {
    const start = performance.now();
    yield* doingNow(`Replaying ${file}`);
    const recording = yield* openRecording(file);
    const { rows, outputs } = yield* match(recording)
      .with({ kind: "step" }, ({ tensors }) => onDevice(verifyStep(tensors, file)))
      .with({ kind: "augment" }, ({ tensors }) => {
        const pictures = join(dirname(file), "pictures");
        return onDevice(verifyAugment(tensors, { name: file, pictures }));
      })
      .with({ kind: "retrieval" }, ({ tensors }) => onDevice(verifyKnn(tensors, file)))
      .with({ kind: "schedule" }, ({ json }) => verifySchedule(json, file))
      .with({ kind: "segmentationStep" }, ({ tensors }) => onDevice(verifySegmentationStep(tensors, file)))
      .with(
        { kind: "segmentationInference" },
        ({ tensors }) => onDevice(verifySegmentationInference(tensors, file)),
      )
      .with({ kind: "segmentationModels" }, ({ json }) => verifyModels(json, file))
      .with({ kind: "segmentationRates" }, ({ json }) => verifySegmentationRates(json, file))
      .with(
        { kind: "segmentationInput" },
        ({ tensors }) => onDevice(verifySegmentationInput(tensors, { name: file, folder: dirname(file) })),
      )
      .with({ kind: "segmentationSizes" }, ({ json }) => verifySegmentationSizes(json, file))
      .with({ kind: "evaluation" }, ({ json, tensors }) => verifyEvaluation(json, tensors.tensors, file))
      .exhaustive();
    const report: Replayed = {
      file,
      kind: recording.kind,
      holds: rows.every(({ holds }) => holds),
      seconds: Math.round(performance.now() - start) / 1000,
      groups: rows,
    };
    return { report, outputs };
  });
});

/** Reports a recording that cannot be replayed as one that does not hold, so that the others are still replayed. */
const refused = (file: string) => ({ message }: { readonly message: string }) =>
  Console.error(`slotcon: ${message}`).pipe(
    Effect.as({ report: { file, holds: false, error: message } satisfies Refused as Report, outputs: null }),
  );

const TITLES = {
  step: "training steps",
  augment: "augmentation",
  retrieval: "retrieval",
  schedule: "schedules",
  segmentationStep: "fine-tuning steps",
  segmentationInference: "segmentation",
  segmentationRates: "learning rates of fine-tuning",
  segmentationInput: "input of fine-tuning",
  segmentationSizes: "sizes of images",
  segmentationModels: "tensors of segmentors",
  evaluation: "scores of segmentations",
};

const table = ({ file, kind, seconds, groups }: Replayed): string => {
  const cells = groups.map((row) => [row.group, largest(row), row.tolerance]);
  const width = (column: number) => Math.max(...cells.map((cell) => cell[column].length));
  const lines = groups.map(({ holds, note }, i) => {
    const [group, error, tolerance] = cells[i];
    const columns = [group.padEnd(width(0)), error.padStart(width(1)), tolerance];
    return holds
      ? `  ${green("ok    ")}  ${columns.join("  ")}`
      : `  ${red("FAILED")}  ${columns.join("  ").padEnd(width(0) + width(1) + width(2) + 4)}  ${note}`;
  });
  const failed = groups.filter(({ holds }) => !holds).length;
  const verdict = failed === 0 ? green("all hold") : red(`${failed} of ${groups.length} fail`);
  const title = `${bold(basename(file))}, ${TITLES[kind]}: ${verdict} (${seconds.toFixed(1)} s)`;
  return [title, ...lines, ""].join("\n");
};

const largest = ({ worst }: VerifyRow): string => {
  if (!Number.isFinite(worst)) return "no number";
  return Number.isInteger(worst)
    ? String(worst)
    : worst < 0.01
    ? worst.toExponential(1)
    : worst.toPrecision(2);
};

const refuseOut = (reason: string, remedy?: string) => new UsageError({ subject: "--out", reason, remedy });

/** Fails unless `target` can keep what these recordings give. */
const expectTarget = Effect.fnUntraced(function* (target: string, recordings: readonly string[]) {
  const count = recordings.length;
  if (count > 1) {
    return yield* refuseOut(
      `it keeps what one recording gives, under that one's names; found ${count} recordings`,
    );
  }
  if (resolve(target) === resolve(recordings[0])) {
    return yield* refuseOut(`"${target}" is the recording itself`, "name another file");
  }
});

const write = (target: string, outputs: ReadonlyMap<string, FileTensor>, recording: string) =>
  Effect.tryPromise({
    try: () =>
      Deno.writeFile(
        target,
        ReadableStream.from(writeSafetensors(outputs, { computed_for: basename(recording) })),
      ),
    catch: (error) => refuseOut(`cannot write "${target}": ${withoutFlags(error).message}`),
  });
