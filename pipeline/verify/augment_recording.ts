/** Replays recorded augmentation, operation by operation. */
import { join } from "node:path";
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { FileArray, FileTensor } from "../../data/formats/file_tensor.ts";
import type { TensorFile } from "../../data/formats/safetensors.ts";
import { type DecodeError, decodeImage, type Picture } from "../../data/images/decode_image.ts";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { augmentationRowWords } from "../../ops/image/augmentation_row.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { IMAGENET } from "../model/resnet.ts";
import { augmentedImages } from "../pretrain/augment.ts";
import { sharedRegion, type ViewDraw } from "../pretrain/draws.ts";
import { packBatch } from "../pretrain/pack.ts";
import { readAugmentRecording, type Stage } from "./read_augment_recording.ts";
import type { Verification, VerifyRow } from "./report.ts";

/**
 * Makes the views of a recording and compares every stage with the recorded one, each from the recorded stage before.
 *
 * `pictures` is the folder of the recording's images. Outputs have the recording's own names. Fails with a
 * `FormatError` that names `name` if `recording` is no complete recording of augmentation, with a DecodeError,
 * PlanError, or as running a program does.
 */
export const verifyAugment: (
  recording: TensorFile,
  source: { readonly name: string; readonly pictures: string },
) => Effect.Effect<
  Verification,
  FormatError | DecodeError | GpuError | PlanError | CollectiveError,
  Gpu
> = Effect.fn("verifyAugment")(
  function* (recording, { name, pictures }) {
    const { size, draws } = yield* readAugmentRecording(recording, name);
    const recorded = (tensor: string) => {
      const found = recording.tensors.get(tensor);
      return found === undefined
        ? Effect.fail(new FormatError({ subject: name, reason: `it has no tensor "${tensor}"` }))
        : Effect.succeed(found);
    };
    const outputs = new Map<string, FileTensor>();
    const compared: Compared[] = [];
    const compare = (group: Group, tensor: string, got: FileTensor, want: FileTensor) => {
      outputs.set(tensor, got);
      compared.push({
        group,
        tensor,
        ...difference(got.data as ArrayLike<number>, want.data as ArrayLike<number>),
      });
    };

    const decoded = new Map<string, Picture>();
    for (const file of new Set(draws.map(({ image }) => image))) {
      const want = yield* recorded(`decoded/${file}`);
      const path = join(pictures, file);
      const bytes = yield* Effect.tryPromise({
        try: () => Deno.readFile(path),
        catch: () => new FormatError({ subject: name, reason: `its picture "${path}" cannot be read` }),
      });
      const { width, height, rgb } = yield* decodeImage(bytes, path);
      const isJpeg = bytes[0] === 0xff && bytes[1] === 0xd8;
      compare(
        isJpeg ? "decoded JPEG" : "decoded PNG",
        `decoded/${file}`,
        values(rgb, height, width, 3),
        want,
      );
      decoded.set(file, pictureOf(want));
    }

    const operations: Operation[] = [];
    for (const [n, { image, views, stages: names }] of draws.entries()) {
      const [first, second] = views;
      const unflipped = sharedRegion([{ ...first, flip: false }, { ...second, flip: false }]);
      for (
        const [tensor, got] of [["coords", sharedRegion(views)], ["coords_unflipped", unflipped]] as const
      ) {
        const want = yield* recorded(`draw${n}/${tensor}`);
        compare("coordinates", `draw${n}/${tensor}`, values(Float32Array.from(got.flat()), 2, 4), want);
      }
      const flags = values(Uint8Array.of(Number(first.flip), Number(second.flip)), 2);
      compare("flags", `draw${n}/flags`, flags, yield* recorded(`draw${n}/flags`));

      for (const [side, view] of views.entries()) {
        let before = decoded.get(image)!;
        for (const [i, stage] of names[side].entries()) {
          const tensor = `draw${n}/view${side}/${i}_${stage}`;
          const want = yield* recorded(tensor);
          operations.push({ group: stage, tensor, picture: before, view: only(stage, view, size), want });
          before = pictureOf(want);
        }
        const tensor = `draw${n}/view${side}/tensor`;
        const want = yield* recorded(tensor);
        operations.push({ group: "tensor", tensor, picture: before, view: only("tensor", view, size), want });
      }
    }
    yield* makeViews(operations, size, ({ group, tensor, want }, got) => compare(group, tensor, got, want));
    return { rows: summarise(compared), outputs };
  },
);

/** One operation on one image, or its normalisation. */
interface Operation {
  readonly group: Stage | "tensor";
  readonly tensor: string;
  /** The image before it. */
  readonly picture: Picture;
  /** A view with this operation alone. */
  readonly view: ViewDraw;
  /** The recorded result. */
  readonly want: FileTensor;
}

/** A view with the operation `stage` alone. */
const only = (stage: Stage | "tensor", view: ViewDraw, size: number): ViewDraw => ({
  box: stage === "crop" ? view.box : [0, 0, size, size],
  flip: stage === "flip",
  jitter: view.jitter.filter(([kind]) => kind === stage),
  gray: stage === "gray",
  blur: stage === "blur" ? view.blur : null,
  solarize: stage === "solarize",
});

/** Samples made at a time. */
const BATCH = 8;
/** Larger batches of images are cropped on the host, as they are in training. */
const MOST_BYTES = 2 ** 26;

/** Runs all operations on the GPU, and `use` on each result. */
const makeViews = Effect.fnUntraced(function* (
  operations: readonly Operation[],
  size: number,
  use: (operation: Operation, got: FileTensor) => void,
) {
  const table = { imageSize: size, maxTaps: 32 };
  const largest = Math.max(
    2 * size * size,
    ...operations.map(({ picture }) => picture.width * picture.height),
  );
  const smallestCapacity = BATCH * (6 * size * size + 8);
  const capacity = Math.ceil(Math.max(smallestCapacity, Math.min(MOST_BYTES, BATCH * 3 * largest)) / 4) * 4;
  const pixels = input("pixels", [capacity / 4], "u32");
  const views = input("views", [2 * BATCH, augmentationRowWords(table)], "u32");
  const images = augmentedImages(pixels, views, table);
  const normalized = normalizePixels(images, IMAGENET);
  const program = yield* compile({ label: "the augmentation", outputs: { images, normalized } });

  for (let from = 0; from < operations.length; from += BATCH) {
    const batch = operations.slice(from, from + BATCH);
    const samples = Array.from({ length: BATCH }, (_, i) => {
      const { picture, view } = batch[i] ?? batch[0];
      return { picture, draw: { views: [view, view] as const, coords: sharedRegion([view, view]) } };
    });
    const packed = packBatch(samples, { ...table, capacity });
    const made = yield* yield* program.run({ pixels: packed.pixels, views: packed.views });
    for (const [i, operation] of batch.entries()) {
      const begin = i * size * size;
      if (operation.group === "tensor") {
        use(operation, planar(made.normalized.subarray(3 * begin, 3 * (begin + size * size)), size));
      } else {
        use(operation, unpacked(made.images.subarray(begin, begin + size * size), size));
      }
    }
  }
}, Effect.scoped);

const values = (data: Uint8Array | Float32Array, ...shape: number[]): FileTensor => {
  if (sizeOf(shape) !== data.length) throw new RangeError(`${data.length} values as [${shape.join(", ")}]`);
  return { dtype: data instanceof Uint8Array ? "U8" : "F32", shape, data: data as FileArray };
};

const pictureOf = ({ shape: [height, width], data }: FileTensor): Picture => ({
  width,
  height,
  rgb: data as Uint8Array,
});

/** Pixels r | g << 8 | b << 16, which f32 holds exactly, to [S, S, 3]. */
const unpacked = (words: Float32Array, size: number): FileTensor =>
  values(
    Uint8Array.from({ length: 3 * words.length }, (_, i) => words[Math.floor(i / 3)] >>> (8 * (i % 3))),
    size,
    size,
    3,
  );

/** [S, S, 3] to [3, S, S]. */
const planar = (pixels: Float32Array, size: number): FileTensor => {
  const area = size * size;
  return values(
    Float32Array.from(pixels, (_, i) => pixels[3 * (i % area) + Math.floor(i / area)]),
    3,
    size,
    size,
  );
};

/** The difference of two tensors: the largest one, the mean, and the share of values that differ. */
interface Difference {
  readonly largest: number;
  readonly mean: number;
  readonly share: number;
}

interface Compared extends Difference {
  readonly group: Group;
  readonly tensor: string;
}

const difference = (got: ArrayLike<number>, want: ArrayLike<number>): Difference => {
  if (got.length !== want.length) return { largest: Infinity, mean: Infinity, share: 1 };
  let largest = 0, sum = 0, different = 0;
  for (let i = 0; i < want.length; i++) {
    const distance = Math.abs(got[i] - want[i]);
    if (distance === 0) continue;
    different++;
    sum += distance;
    if (!(distance <= largest)) largest = Number.isNaN(distance) ? Infinity : distance;
  }
  return { largest, mean: sum / want.length, share: different / want.length };
};

/** The difference that a group may have. */
interface Tolerance {
  readonly tolerance: string;
  readonly allows: (difference: Difference) => boolean;
}

const equal: Tolerance = { tolerance: "equal", allows: ({ largest }) => largest === 0 };
const within1e6: Tolerance = { tolerance: "1e-6 absolute", allows: ({ largest }) => largest <= 1e-6 };
const rarely = (limit: number): Tolerance => ({
  tolerance: `${limit} in at most 1 % of the values`,
  allows: ({ largest, share }) => largest <= limit && share <= 0.01,
});
const TOLERANCES = {
  "decoded JPEG": {
    tolerance: "2, and 0.2 on average",
    allows: ({ largest, mean }) => largest <= 2 && mean <= 0.2,
  },
  "decoded PNG": equal,
  coordinates: within1e6,
  flags: equal,
  crop: rarely(1),
  flip: rarely(1),
  brightness: rarely(1),
  contrast: rarely(1),
  saturation: rarely(1),
  hue: rarely(3), // a difference of 1 in the intermediate hue can become 3
  gray: rarely(1),
  blur: rarely(1),
  solarize: rarely(1),
  tensor: within1e6,
} satisfies Readonly<Record<string, Tolerance>>;
type Group = keyof typeof TOLERANCES;

const summarise = (compared: readonly Compared[]): VerifyRow[] =>
  (Object.keys(TOLERANCES) as Group[]).flatMap((group) => {
    const { tolerance, allows } = TOLERANCES[group];
    const members = compared.filter((member) => member.group === group);
    if (members.length === 0) return [];
    const failed = members.filter((member) => !allows(member));
    const worst = (failed.length > 0 ? failed : members).reduce((a, b) => b.largest > a.largest ? b : a);
    return [{
      group,
      worst: worst.largest,
      tolerance,
      holds: failed.length === 0,
      ...(worst.share > 0 && {
        note: `${worst.tensor}, ${(100 * worst.share).toFixed(2)} % of its values differ`,
      }),
    }];
  });
