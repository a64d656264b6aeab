/** Verifies the scores of segmentations against recorded ones. */
import { Effect, Schema } from "effect";
import { IGNORED } from "../../data/datasets/segmentation/label_source.ts";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import {
  addToConfusion,
  type Confusion,
  noConfusion,
  percent,
  segmentationScores,
} from "../transfer/segmentation/scores.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Figure = Schema.NullOr(Schema.Number);
const Case = Schema.Struct({
  case: Schema.String,
  classes: Schema.Int,
  reduce_zero_label: Schema.Boolean,
  ignore_index: Schema.Int,
  maps: Schema.Int,
  confusion: Schema.Array(Schema.Array(Schema.Int)),
  intersect: Schema.Array(Schema.Int),
  union: Schema.Array(Schema.Int),
  predicted: Schema.Array(Schema.Int),
  labelled: Schema.Array(Schema.Int),
  IoU: Schema.Array(Figure),
  Acc: Schema.Array(Figure),
  aAcc: Figure,
  mIoU: Figure,
  mAcc: Figure,
  printed: Schema.Struct({ aAcc: Schema.Number, mIoU: Schema.Number, mAcc: Schema.Number }),
});
type Case = typeof Case.Type;
const decodeRecording = Schema.decodeUnknownEffect(Schema.Struct({ cases: Schema.Array(Case) }));

const GROUPS = {
  "pixels by class and prediction": { limit: 0, tolerance: "equal" },
  "pixels of classes": { limit: 0, tolerance: "equal" },
  "figures of classes": { limit: 1e-9, tolerance: "1e-9 absolute" },
  "figures": { limit: 1e-9, tolerance: "1e-9 absolute" },
  "printed figures": { limit: 0, tolerance: "equal" },
} as const;

interface Compared {
  readonly group: keyof typeof GROUPS;
  readonly error: number;
  readonly where: string;
}

/**
 * Scores the recorded label maps in `tensors` and compares with the scores in `json`.
 *
 * Outputs are, for each case, `<case>/confusion`, I64 [K, K], `<case>/IoU` and `<case>/Acc`, F64 [K] (NaN: 0/0), and
 * `<case>/figures`, F64 [3]: aAcc, mIoU, mAcc. Fails with a `FormatError` that names `file` where it is no such
 * recording or lacks a map.
 */
export const verifyEvaluation: (
  json: unknown,
  tensors: TensorFile["tensors"],
  file: string,
) => Effect.Effect<Verification, FormatError> = Effect.fn("verifyEvaluation")(
  function* (json, tensors, file) {
    const { cases } = yield* decodeRecording(json).pipe(
      Effect.mapError(({ message }) =>
        new FormatError({
          subject: file,
          reason: `it is no recording of an evaluation: ${message.replace(/\s*\n\s*/g, " ")}`,
        })
      ),
    );
    const compared: Compared[] = [];
    const outputs = new Map<string, FileTensor>();
    for (const recorded of cases) {
      const { counts, classes: K } = yield* confusionOf(recorded, tensors, file);
      const scores = segmentationScores({ counts, classes: K });
      compared.push(...differences(recorded, counts, scores));
      const numbers = (values: readonly (number | null)[]): FileTensor => ({
        dtype: "F64",
        shape: [values.length],
        data: Float64Array.from(values, (value) => value ?? NaN),
      });
      outputs.set(`${recorded.case}/confusion`, {
        dtype: "I64",
        shape: [K, K],
        data: BigInt64Array.from(counts, BigInt),
      });
      outputs.set(`${recorded.case}/IoU`, numbers(scores.perClass.map(({ iou }) => iou)));
      outputs.set(`${recorded.case}/Acc`, numbers(scores.perClass.map(({ accuracy }) => accuracy)));
      outputs.set(`${recorded.case}/figures`, numbers([scores.aAcc, scores.mIoU, scores.mAcc]));
    }
    const rows = Object.entries(GROUPS).map(([group, { limit, tolerance }]): VerifyRow => {
      const own = compared.filter((each) => each.group === group);
      const worst = own.reduce((a, b) => b.error > a.error ? b : a, { error: 0, where: "" });
      return { group, worst: worst.error, tolerance, holds: worst.error <= limit, note: worst.where };
    });
    return { rows, outputs };
  },
);

/** The counts of all maps of a case, whose labels are as they are stored. */
const confusionOf = Effect.fnUntraced(function* (
  { case: name, classes, maps, reduce_zero_label, ignore_index }: Case,
  tensors: TensorFile["tensors"],
  file: string,
): Effect.fn.Return<Confusion, FormatError> {
  const confusion = noConfusion(classes);
  for (let i = 0; i < maps; i++) {
    const [predictions, labels] = ["prediction", "label"].map((kind) => tensors.get(`${name}/${i}/${kind}`));
    if (predictions === undefined || labels === undefined || !sameShape(predictions.shape, labels.shape)) {
      const reason = `it must have "${name}/${i}/prediction" and "${name}/${i}/label", of one shape`;
      return yield* new FormatError({ subject: file, reason });
    }
    addToConfusion(confusion, {
      predictions: predictions.data as Uint8Array,
      labels: (labels.data as Uint8Array).map((label) => {
        if (label === ignore_index || reduce_zero_label && label === 0) return IGNORED;
        return reduce_zero_label ? label - 1 : label;
      }),
    });
  }
  return confusion;
});

const differences = (
  recorded: Case,
  counts: Confusion["counts"],
  scores: ReturnType<typeof segmentationScores>,
): Compared[] => {
  const { perClass } = scores;
  const compared: Compared[] = [];
  const compare = (
    group: Compared["group"],
    what: string,
    got: readonly (number | null)[],
    want: readonly (number | null)[],
  ) => {
    const error = got.length === want.length
      ? Math.max(0, ...got.map((value, i) => distance(value, want[i])))
      : Infinity;
    compared.push({ group, error, where: `${recorded.case}: ${what}` });
  };
  compare("pixels by class and prediction", "confusion", [...counts], recorded.confusion.flat());
  compare("pixels of classes", "intersect", perClass.map(({ hits }) => hits), recorded.intersect);
  compare("pixels of classes", "labelled", perClass.map(({ labelled }) => labelled), recorded.labelled);
  compare("pixels of classes", "predicted", perClass.map(({ predicted }) => predicted), recorded.predicted);
  compare(
    "pixels of classes",
    "union",
    perClass.map(({ labelled, predicted, hits }) => labelled + predicted - hits),
    recorded.union,
  );
  compare("figures of classes", "IoU", perClass.map(({ iou }) => iou), recorded.IoU);
  compare("figures of classes", "Acc", perClass.map(({ accuracy }) => accuracy), recorded.Acc);
  for (const figure of ["aAcc", "mIoU", "mAcc"] as const) {
    compare("figures", figure, [scores[figure]], [recorded[figure]]);
    compare("printed figures", figure, [Number(percent(scores[figure]))], [recorded.printed[figure]]);
  }
  return compared;
};

/** The distance of two figures; that of a number and of 0/0 (null or NaN) is infinite. */
const distance = (got: number | null, want: number | null | undefined): number => {
  const isNumber = (value: number | null | undefined) => typeof value === "number" && !Number.isNaN(value);
  if (isNumber(got) && isNumber(want)) return Math.abs(got! - want!);
  return isNumber(got) === isNumber(want) && want !== undefined ? 0 : Infinity;
};
