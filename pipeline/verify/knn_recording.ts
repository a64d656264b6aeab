/**
 * Replays a recorded retrieval: a teacher's scores of images, the nearest images of every prototype, and the prototype
 * with the highest score at each pixel.
 */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileArray, FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import type { Shape } from "../../ops/graph/shape.ts";
import { constant } from "../../ops/graph/tensor.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import { evaluate } from "../../ops/runtime/program.ts";
import { transpose } from "../../ops/slice.ts";
import type { RunError } from "../inference/descriptors.ts";
import { pack } from "../inference/packed_pictures.ts";
import { packedBatches, runBatches, slotProgram, uploadTeacher } from "../inference/slot_program.ts";
import { type ArchitectureName, ARCHITECTURES, IMAGENET } from "../model/resnet.ts";
import { type NonFiniteScoresError, retrieve } from "../visualize/retrieval.ts";
import { teacherOf } from "../weights/teacher.ts";
import type { Verification, VerifyRow } from "./report.ts";

const decodeMetadata = Schema.decodeUnknownEffect(Schema.Struct({
  config: Schema.fromJsonString(Schema.Struct({
    arch: Schema.Literals(Object.keys(ARCHITECTURES) as ArchitectureName[]),
  })),
}));

/** Images at a time. */
const BATCH = 8;

/**
 * Replays a recording of retrieval. Outputs have the recording's own names. Fails with a `FormatError` that names
 * `file` where it is no such recording, lacks a tensor, or has one of another shape than the others call for.
 */
export const verifyKnn: (
  recording: TensorFile,
  file: string,
) => Effect.Effect<
  Verification,
  FormatError | NonFiniteScoresError | PlanError | RunError,
  Gpu
> = Effect.fn("verifyKnn")(function* (recording, file) {
  const refuse = (reason: string) => new FormatError({ subject: file, reason });
  const { config } = yield* decodeMetadata(recording.metadata).pipe(
    Effect.mapError(({ message }) =>
      refuse(`its metadata is not that of a recorded retrieval: ${message.replace(/\s*\n\s*/g, " ")}`)
    ),
  );
  /** A recorded tensor of this shape, in which null stands for any length. */
  const recorded = (name: string, ...shape: readonly (number | null)[]) => {
    const tensor = recording.tensors.get(name);
    if (tensor === undefined) return Effect.fail(refuse(`it has no tensor "${name}"`));
    const fits = tensor.shape.length === shape.length &&
      shape.every((length, axis) => length === null || length === tensor.shape[axis]);
    if (fits) return Effect.succeed(tensor);
    const needed = shape.map((length) => length ?? "any").join(", ");
    return Effect.fail(refuse(`"${name}" must be [${needed}], it is [${tensor.shape.join(", ")}]`));
  };

  const { model: found, values } = yield* teacherOf({
    file,
    container: "safetensors",
    tensors: new Map(
      [...recording.tensors].flatMap(([name, { dtype, shape, data }]) =>
        name.startsWith("model/")
          ? [[name.slice("model/".length), { dtype, shape, values: Effect.succeed(data) }] as const]
          : []
      ),
    ),
    leftOut: [],
    content: { kind: "networks" },
  });
  const model = { ...found, arch: config.arch };
  const K = model.numPrototypes;
  const { shape: [N, S], data } = yield* recorded("pixels", null, null, null, 3);
  yield* recorded("pixels", N, S, S, 3);
  if (!(data instanceof Uint8Array)) return yield* refuse('"pixels" must be of type U8');
  const pictures = Array.from({ length: N }, (_, n) => ({
    width: S,
    height: S,
    rgb: data.subarray(n * S * S * 3, (n + 1) * S * S * 3),
  }));
  const { shape: [, topk] } = yield* recorded("expect/idxs", K, null);

  const teacher = yield* uploadTeacher(model, values);
  const batch = Math.min(BATCH, N);
  const program = yield* slotProgram(model, teacher, { pictures: [batch, S, S] });
  const [, h, w] = program.scores;
  const dots = new Float32Array(N * K * h * w), scores = new Float32Array(N * K);
  const { nearest } = yield* retrieve(program, packedBatches(pictures, batch), {
    topk,
    seen: ({ place, values }, found) => {
      scores.set(found.scores, place * K);
      values.forEach((dot, i) => dots[(place * K + i % K) * h * w + Math.floor(i / K)] = dot);
    },
  });
  const mapping = yield* slotProgram(model, teacher, {
    pictures: [batch, S, S],
    slots: { width: S, height: S },
  });
  const segments = new Float32Array(N * S * S);
  yield* runBatches(
    mapping,
    packedBatches(pictures, batch),
    ({ place, values }) => Effect.sync(() => segments.set(values, place * S * S)),
  );
  const packed = new Uint32Array(N * S * S);
  pictures.forEach((image, n) => pack(image, packed.subarray(n * S * S, (n + 1) * S * S)));
  const normalized = normalizePixels(constant(packed, [N, S, S]), IMAGENET);
  const images = yield* evaluate(transpose(normalized, [0, 3, 1, 2]));

  const best = nearest.flat();
  const computed: readonly [Group, string, Shape, ArrayLike<number>][] = [
    ["normalised pictures", "images", [N, 3, S, S], images],
    ["cosines", "expect/dots", [N, K, h, w], dots],
    ["scores", "expect/scores", [N, K], scores],
    ["scores", "expect/top_scores", [K, topk], best.map(({ score }) => score)],
    ["nearest pictures", "expect/idxs", [K, topk], best.map(({ picture }) => picture)],
    ["winners of pixels", "expect/segments", [N, S, S], segments],
  ];
  const outputs = new Map<string, FileTensor>();
  const compared: Compared[] = [];
  for (const [group, name, shape, got] of computed) {
    const want = yield* recorded(name, ...shape);
    outputs.set(name, { ...want, data: like(want.data, got) });
    compared.push({ group, name, error: TOLERANCES[group].error(got, Array.from(want.data, Number)) });
  }
  for (const name of recording.tensors.keys()) {
    if (name.startsWith("expect/") && !outputs.has(name)) {
      compared.push({ group: "recorded but not computed", name, error: Infinity });
    }
  }
  return { rows: summarise(compared), outputs } satisfies Verification as Verification;
}, Effect.scoped);

interface Tolerance {
  readonly tolerance: string;
  readonly error: (got: ArrayLike<number>, want: readonly number[]) => number;
  readonly limit: number;
}

const largest = (got: ArrayLike<number>, want: readonly number[]) =>
  want.reduce((most, value, i) => Math.max(most, Math.abs(got[i] - value)), 0); // stays NaN
const norm = (values: readonly number[]) => Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
const differing = (got: ArrayLike<number>, want: readonly number[]) =>
  want.reduce((count, value, i) => count + Number(got[i] !== value), 0);

const TOLERANCES = {
  "normalised pictures": { tolerance: "1e-6 absolute", error: largest, limit: 1e-6 },
  "cosines": {
    tolerance: "2e-4 · ‖want‖",
    error: (got, want) => norm(want.map((value, i) => got[i] - value)) / norm(want),
    limit: 2e-4,
  },
  "scores": { tolerance: "1e-4 absolute", error: largest, limit: 1e-4 },
  "nearest pictures": { tolerance: "equal", error: differing, limit: 0 },
  "winners of pixels": {
    tolerance: "differ in 0.1 % of the pixels",
    error: (got, want) => differing(got, want) / want.length,
    limit: 1e-3,
  },
  "recorded but not computed": { tolerance: "none", error: () => Infinity, limit: 0 },
} satisfies Readonly<Record<string, Tolerance>>;
type Group = keyof typeof TOLERANCES;

interface Compared {
  readonly group: Group;
  readonly name: string;
  readonly error: number;
}

const summarise = (compared: readonly Compared[]): VerifyRow[] =>
  (Object.keys(TOLERANCES) as Group[]).flatMap((group) => {
    const members = compared.filter((member) => member.group === group);
    if (members.length === 0) return [];
    const { tolerance, limit } = TOLERANCES[group];
    const worst = members.reduce((a, b) => b.error > a.error || Number.isNaN(b.error) ? b : a);
    return [{
      group,
      tensors: members.length,
      worst: worst.error,
      tolerance,
      holds: worst.error <= limit,
      note: worst.name,
    }];
  });

/** Values as an array of the same type. */
const like = (array: FileArray, values: ArrayLike<number>): FileArray =>
  array instanceof BigInt64Array
    ? BigInt64Array.from(values, BigInt)
    : (array.constructor as Float32ArrayConstructor).from(values);
