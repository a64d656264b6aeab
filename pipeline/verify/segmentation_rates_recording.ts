/** Verifies the learning rates of fine-tuning against recorded ones. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { policyRate } from "../optim/rate_policy.ts";
import { Policy, recordedPolicy } from "./read_segmentation_recording.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Recording = Schema.Struct({
  schedules: Schema.Array(Schema.Struct({
    name: Schema.String,
    lr: Schema.Finite,
    max_iters: Schema.Int,
    policy: Policy,
    iteration: Schema.Array(Schema.Int),
    rate: Schema.Array(Schema.Finite),
  })),
});
const decodeRecording = Schema.decodeUnknownEffect(Recording);

const LIMIT = 1e-12;

/**
 * Compares the rates of whole runs with recorded ones, a row a schedule. Outputs are `<name>/rate`, F64 [recorded
 * iterations]. Fails with a `FormatError` that names `file` if `json` is no recording of such schedules.
 */
export const verifySegmentationRates: (
  json: unknown,
  file: string,
) => Effect.Effect<Verification, FormatError> = Effect.fn("verifySegmentationRates")(
  function* (json, file) {
    const refuse = (reason: string) => new FormatError({ subject: file, reason });
    const { schedules } = yield* decodeRecording(json).pipe(
      Effect.mapError(({ message }) =>
        refuse(`it is no recording of fine-tuning's schedules: ${message.replace(/\s*\n\s*/g, " ")}`)
      ),
    );
    const outputs = new Map<string, FileTensor>();
    const rows: VerifyRow[] = [];
    for (const recorded of schedules) {
      const { name, iteration, rate } = recorded;
      if (iteration.length !== rate.length || rate.length === 0) {
        return yield* refuse(
          `schedule "${name}" has ${rate.length} rates for ${iteration.length} iterations`,
        );
      }
      const rates = Float64Array.from(iteration, (i) => policyRate(i, recordedPolicy(recorded)));
      const errors = rate.map((want, i) =>
        rates[i] === want ? 0 : Math.abs(rates[i] - want) / Math.abs(want)
      );
      const worst = errors.reduce((worst, error) => error <= worst ? worst : error, 0); // keeps NaN
      outputs.set(`${name}/rate`, { dtype: "F64", shape: [rates.length], data: rates });
      rows.push({
        ...{ group: `learning rate, ${name}`, worst, tolerance: `${LIMIT.toExponential()} relative` },
        ...{ holds: worst <= LIMIT, note: `iteration ${iteration[errors.indexOf(worst)]}` },
      });
    }
    return { rows, outputs };
  },
);
