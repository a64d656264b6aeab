/** Verifies the sizes that images are resized to against recorded ones. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import { resizedSize, scaledLimits } from "../transfer/segmentation/draws.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Pair = Schema.Tuple([Schema.Int, Schema.Int]);
const size = { recipe: Schema.String, size: Pair, resized: Pair };
const Recording = Schema.Struct({
  img_scale: Schema.Record(Schema.String, Pair),
  test: Schema.Array(Schema.Struct(size)),
  train: Schema.Array(Schema.Struct({ ...size, ratio: Schema.Finite, scale: Pair })),
});
const decodeRecording = Schema.decodeUnknownEffect(Recording);

/**
 * Compares target sizes of training and test, of which none may differ. There are no outputs. Fails with a `FormatError`
 * that names `file` if `json` is no recording of sizes.
 */
export const verifySegmentationSizes: (
  json: unknown,
  file: string,
) => Effect.Effect<Verification, FormatError> = Effect.fn("verifySegmentationSizes")(function* (json, file) {
  const refuse = (message: string) =>
    new FormatError({ subject: file, reason: `it is no recording of sizes: ${message}` });
  const recorded = yield* decodeRecording(json).pipe(Effect.mapError(({ message }) => refuse(message)));
  const limitsOf = (recipe: string) => {
    const found = recorded.img_scale[recipe];
    return found === undefined
      ? Effect.fail(refuse(`it has no img_scale of "${recipe}"`))
      : Effect.succeed({ longSide: found[0], shortSide: found[1] });
  };
  const wrong: Record<"test" | "train", string[]> = { test: [], train: [] };
  for (const kind of ["test", "train"] as const) {
    for (const entry of recorded[kind]) {
      const { recipe, size: [width, height], resized } = entry;
      const limits = scaledLimits(yield* limitsOf(recipe), "ratio" in entry ? entry.ratio : 1);
      const got = resizedSize({ width, height }, limits);
      const sides = [got.width, got.height, limits.longSide, limits.shortSide];
      const wanted = [...resized, ..."scale" in entry ? entry.scale : sides.slice(2)];
      if (sides.some((side, i) => side !== wanted[i])) {
        wrong[kind].push(`${width} x ${height} of ${recipe}`);
      }
    }
  }
  const row = (kind: "test" | "train", group: string): VerifyRow => ({
    group,
    worst: wrong[kind].length,
    tolerance: `none of ${recorded[kind].length} differs`,
    holds: wrong[kind].length === 0,
    note: wrong[kind][0],
  });
  return { rows: [row("test", "sizes in tests"), row("train", "sizes in training")], outputs: new Map() };
});
