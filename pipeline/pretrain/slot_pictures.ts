/**
 * The stage that shows how slots change: every so often it draws the teacher's slots on a few images of the data set,
 * as JPEG files in the run's folder. A colour stands for the same prototype throughout a run.
 */
import { join } from "node:path";
import { Effect, type Scope } from "effect";
import sharp from "sharp";
import { writeWholeFile } from "../../data/files/write_whole_file.ts";
import type { EncodedPicture } from "../../data/formats/tfevents.ts";
import { type Picture, readPicture } from "../../data/images/decode_image.ts";
import { argmaxMap } from "../../ops/argmax_map.ts";
import { lower } from "../../ops/compiler/lower.ts";
import type { MemoryPlan } from "../../ops/compiler/memory_plan.ts";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import type { Gpu } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState } from "../../ops/runtime/program.ts";
import { evaluationFrame, framed } from "../inference/framed.ts";
import { pack } from "../inference/packed_pictures.ts";
import { teacherScores } from "../inference/slot_program.ts";
import { StateBuilder } from "../model/state_builder.ts";
import type { Observer } from "../run/train.ts";
import { distinctColors } from "../visualize/colors.ts";
import { tinted } from "../visualize/tinted.ts";
import { explained } from "../run/advice.ts";
import type { Config } from "./config.ts";

/** Draws the slots of a run's teacher now and then: into `slot_maps/` of the run's folder, and as the image "slots". */
export interface SlotPictures extends Observer {
  /** Bytes of device memory, besides the run's own state. */
  readonly deviceBytes: number;
}

/** Images in a row. */
const IMAGES = 6;
/** Files that are tried for each of them, since some may not be decodable. */
const TRIES = 10;
/** Fewest steps between two drawings, and most drawings in a run. */
const FEWEST_STEPS = 25;
const DRAWINGS = 100;

/** The graph from images to the prototype with the highest score at each pixel, by the teacher's state. */
const slotGraph = (config: Config) => {
  const size = config.imageSize;
  const teacher = new StateBuilder();
  const scores = teacherScores(teacher, input("pictures", [IMAGES, size, size], "u32"), config);
  const slots = argmaxMap(scores, { width: size, height: size });
  return { teacher, graph: { label: "the slot maps", outputs: { slots } } };
};

const besideState = ({ total, groups }: MemoryPlan) => total - groups.state;

/** Bytes of device memory that drawing slots takes, besides the run's own state, for as long as the run lasts. */
export const slotPictureBytes = (config: Config, traits: AdapterTraits): number => {
  const { teacher, graph } = slotGraph(config);
  return besideState(lower(graph, traits, (name) => teacher.declared.has(name)).plan);
};

/**
 * Draws the slots of a run: `slot_maps/pictures.jpg` is a row of images, and `step_000123.jpg` the same row in the
 * colours of their slots after so many steps. Reads the run's own state on the device and does not change it. A full
 * disk costs the file and causes a warning. Null where the run has no teacher like this project's, no readable image
 * or no memory left.
 */
export const slotPictures: (
  config: Config,
  images: readonly string[],
  run: { readonly state: StateBuilder; readonly buffers: DeviceState; readonly lastStep: number },
) => Effect.Effect<SlotPictures | null, never, Gpu | Scope.Scope> = Effect.fn("slotPictures")(function* (
  config,
  images,
  run,
) {
  const size = config.imageSize;
  const { teacher, graph } = slotGraph(config);
  const known = (name: string) => run.state.declared.get(name)?.tensor.shape ?? [NaN];
  if (![...teacher.declared.values()].every(({ name, tensor }) => sameShape(known(name), tensor.shape))) {
    return null;
  }
  const shown = yield* spreadOut(images, size);
  if (shown.length === 0) return null;
  const program = yield* compile(graph, run.buffers).pipe(
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`${explained(error)}. The run shows no slot maps.`), null)
    ),
  );
  if (program === null) return null;

  const folder = join(config.outputDir, "slot_maps");
  const write = Effect.fnUntraced(function* (name: string, row: readonly Picture[]) {
    const image = yield* Effect.promise(() => jpeg(row));
    yield* Effect.tryPromise({
      try: () => Deno.mkdir(folder, { recursive: true }),
      catch: (error) => error as Error,
    }).pipe(
      Effect.andThen(writeWholeFile(join(folder, name), [image.file])),
      Effect.catch(({ message }) => Effect.logWarning(`Cannot write "${join(folder, name)}": ${message}`)),
    );
    return image;
  });
  const words = size * size;
  const pixels = new Uint32Array(IMAGES * words); // black for images that are missing
  shown.forEach((image, i) => pack(image, pixels.subarray(i * words, (i + 1) * words)));
  const colors = distinctColors(config.numPrototypes);
  const every = Math.max(FEWEST_STEPS, Math.ceil(run.lastStep / DRAWINGS));
  let isFirst = true;
  return {
    deviceBytes: besideState(program.plan),
    due: (done) => done % every === 0 || done === run.lastStep,
    observe: (done) =>
      program.run({ pictures: pixels }).pipe(
        Effect.map(Effect.flatMap(({ slots }) =>
          Effect.gen(function* () {
            if (isFirst) yield* write("pictures.jpg", shown);
            isFirst = false;
            const row = shown.map((image, i) =>
              tinted(image, slots.subarray(i * words, (i + 1) * words), colors)
            );
            const drawn = yield* write(`step_${String(done).padStart(6, "0")}.jpg`, row);
            return new Map([["slots", drawn]]);
          })
        )),
      ),
  } satisfies SlotPictures as SlotPictures;
});

/** Images from all over the list, resized and cropped as in evaluations, without those that cannot be decoded. */
const spreadOut = (images: readonly string[], imageSize: number) => {
  const count = Math.min(IMAGES, images.length);
  const share = images.length / count;
  return Effect.forEach(Array.from({ length: count }).keys(), (i) => {
    const first = Math.floor(i * share);
    const candidates = images.slice(first, Math.min(first + TRIES, Math.floor((i + 1) * share)));
    return Effect.firstSuccessOf(candidates.map((file) => readPicture(file))).pipe(
      Effect.map((image) => [framed(image, evaluationFrame(imageSize))]),
      Effect.orElseSucceed(() => []),
    );
  }).pipe(Effect.map((found) => found.flat()));
};

/** Images of one size side by side. */
const jpeg = async (row: readonly Picture[]): Promise<EncodedPicture> => {
  const [{ width, height }] = row;
  const data = new Uint8Array(3 * width * height * row.length);
  row.forEach(({ rgb }, i) => {
    for (let y = 0; y < height; y++) {
      data.set(rgb.subarray(3 * y * width, 3 * (y + 1) * width), 3 * width * (y * row.length + i));
    }
  });
  const size = { width: width * row.length, height };
  const file = await sharp(data, { raw: { ...size, channels: 3 } })
    .jpeg({ quality: 85, chromaSubsampling: "4:4:4" }).toBuffer();
  return { ...size, file };
};
