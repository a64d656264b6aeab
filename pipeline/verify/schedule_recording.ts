/** Verifies schedules against recorded ones. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { learningRate, planSchedule, teacherCounter, teacherMomentum } from "../optim/schedule.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Recording = Schema.Struct({
  format: Schema.Literal("slotcon-schedules/1"),
  schedules: Schema.Array(Schema.Struct({
    name: Schema.String,
    epochs: Schema.Number,
    warmup_epoch: Schema.Number,
    warmup_multiplier: Schema.Number,
    base_lr: Schema.Number,
    total_batch: Schema.Number,
    world: Schema.Number,
    batch_per_rank: Schema.Number,
    num_instances: Schema.Number,
    teacher_momentum: Schema.Number,
    iters_per_epoch: Schema.Number,
    total_steps: Schema.Number,
    peak_lr: Schema.Number,
    ema_K: Schema.Number,
    resume: Schema.Array(
      Schema.Struct({ start_epoch: Schema.Number, ema_k: Schema.Number, step: Schema.Number }),
    ),
    step: Schema.Array(Schema.Number),
    lr: Schema.Array(Schema.Number),
    ema_momentum: Schema.Array(Schema.Number),
  })),
});
const decodeRecording = Schema.decodeUnknownEffect(Recording);

const GROUPS = {
  "derived numbers": { limit: 0, tolerance: "equal" },
  "peak rate": { limit: 1e-12, tolerance: "1e-12 relative" },
  "learning rate": { limit: 1e-12, tolerance: "1e-12 relative" },
  // The published code computes each of these rates from the one before it, so that rounding adds up.
  "learning rate without warm-up": { limit: 1e-9, tolerance: "1e-9 relative" },
  "teacher momentum": { limit: 1e-14, tolerance: "1e-14 absolute" },
  "counters on resuming": { limit: 0, tolerance: "equal" },
} as const;

interface Compared {
  readonly group: keyof typeof GROUPS;
  readonly error: number;
  readonly where: string;
}

/**
 * Compares the rates and momenta of whole runs with recorded ones.
 *
 * Outputs are `schedule{n}/lr` and `schedule{n}/ema_momentum`, F64 [recorded steps]. Fails with a `FormatError` that
 * names `file` if `json` is no recording of schedules.
 */
export const verifySchedule: (
  json: unknown,
  file: string,
) => Effect.Effect<Verification, FormatError> = Effect.fn("verifySchedule")(
  function* (json, file) {
    const { schedules } = yield* decodeRecording(json).pipe(
      Effect.mapError(({ message }) =>
        new FormatError({ subject: file, reason: `it is no recording of schedules: ${message}` })
      ),
    );
    const compared: Compared[] = [];
    const outputs = new Map<string, FileTensor>();
    for (const [n, recorded] of schedules.entries()) {
      const options = {
        epochs: recorded.epochs,
        warmupEpoch: recorded.warmup_epoch,
        warmupMultiplier: recorded.warmup_multiplier,
        baseLr: recorded.base_lr,
        batchSize: recorded.total_batch,
        world: recorded.world,
        instances: recorded.num_instances,
        teacherMomentum: recorded.teacher_momentum,
      };
      const schedule = planSchedule(options);
      const compare = (group: keyof typeof GROUPS, error: number, what: string) =>
        compared.push({
          group,
          error: Number.isNaN(error) ? Infinity : error,
          where: `${what}, "${recorded.name}"`,
        });

      compare("derived numbers", distance(schedule.batchPerRank, recorded.batch_per_rank), "batch_per_rank");
      compare(
        "derived numbers",
        distance(schedule.stepsPerEpoch, recorded.iters_per_epoch),
        "iters_per_epoch",
      );
      compare("derived numbers", distance(schedule.totalSteps, recorded.total_steps), "total_steps");
      compare("derived numbers", distance(schedule.teacherSteps, recorded.ema_K), "ema_K");
      compare("peak rate", relative(schedule.peakRate, recorded.peak_lr), "peak_lr");

      const rates = Float64Array.from(recorded.step, (step) => learningRate(step, schedule));
      const momenta = Float64Array.from(recorded.step, (step) => teacherMomentum(step, schedule));
      const rateGroup = recorded.warmup_epoch === 0 ? "learning rate without warm-up" : "learning rate";
      for (const [i, step] of recorded.step.entries()) {
        compare(rateGroup, relative(rates[i], recorded.lr[i]), `step ${step}`);
        compare("teacher momentum", distance(momenta[i], recorded.ema_momentum[i]), `step ${step}`);
      }
      outputs.set(`schedule${n}/lr`, { dtype: "F64", shape: [rates.length], data: rates });
      outputs.set(`schedule${n}/ema_momentum`, { dtype: "F64", shape: [momenta.length], data: momenta });

      for (const { start_epoch, ema_k, step } of recorded.resume) {
        const done = start_epoch - 1;
        compare(
          "counters on resuming",
          distance(teacherCounter(options, done), ema_k),
          `ema_k of epoch ${start_epoch}`,
        );
        compare(
          "counters on resuming",
          distance(done * schedule.stepsPerEpoch, step),
          `step of epoch ${start_epoch}`,
        );
      }
    }
    return { rows: summarise(compared), outputs };
  },
);

const distance = (got: number, want: number) => Math.abs(got - want);
const relative = (got: number, want: number) => Math.abs(got - want) / Math.abs(want);

const summarise = (compared: readonly Compared[]): VerifyRow[] =>
  [...Map.groupBy(compared, ({ group }) => group)].map(([group, members]) => {
    const worst = members.reduce((a, b) => b.error > a.error ? b : a);
    const { limit, tolerance } = GROUPS[group];
    return { group, worst: worst.error, tolerance, holds: worst.error <= limit, note: worst.where };
  });
