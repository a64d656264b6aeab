/**
 * The stage that shows how slots change: every so often, the teacher's slots on a few pictures of the data set, as JPEG
 * files in the run's folder. Which prototype a colour stands for stays the same throughout a run.
 */
import { join } from "node:path";
import { Effect } from "effect";
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
import type { CollectiveError } from "../../ops/runtime/collective.ts";
import type { GpuError } from "../../ops/runtime/gpu.ts";
import { compile, type DeviceState } from "../../ops/runtime/program.ts";
import { evaluationFrame, framed } from "../inference/framed.ts";
import { pack } from "../inference/packed_pictures.ts";
import { teacherScores } from "../inference/slot_program.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { distinctColors } from "../visualize/colors.ts";
import { tinted } from "../visualize/tinted.ts";
import type { Config } from "./config.ts";

export interface SlotPictures {
  /** Of device memory, beside the run's own state. */
  readonly deviceBytes: number;
  /** Are the slots to be drawn when this many steps are done? */
  readonly due: (done: number) => boolean;
  /**
   * Has the device look at the pictures with the state as it is after all steps submitted so far; the inner effect
   * waits for that, writes the file and gives it back. A full disk costs the file and a warning.
   */
  readonly draw: (
    done: number,
  ) => Effect.Effect<Effect.Effect<EncodedPicture, GpuError>, GpuError | CollectiveError>;
}

const PICTURES = 6;
const TRIES = 10; // files that are looked at for each of them, if some cannot be decoded
const FEWEST_STEPS = 25; // between two drawings, and at most so many drawings in a run:
const DRAWINGS = 100;

/** From pictures to the prototype that wins each pixel, by the teacher's state. */
const slotGraph = (config: Config) => {
  const size = config.imageSize;
  const teacher = new StateBuilder();
  const scores = teacherScores(teacher, input("pictures", [PICTURES, size, size], "u32"), config);
  const slots = argmaxMap(scores, { width: size, height: size });
  return { teacher, graph: { label: "the slot maps", outputs: { slots } } };
};

const besideState = ({ total, groups }: MemoryPlan) => total - groups.state;

/** How much of an adapter's memory slot pictures take for as long as the run lasts, in bytes. */
export const slotPictureBytes = (config: Config, traits: AdapterTraits): number => {
  const { teacher, graph } = slotGraph(config);
  return besideState(lower(graph, traits, (name) => teacher.declared.has(name)).plan);
};

/**
 * Slot pictures of a run, into `slot_maps/` of its folder: `pictures.jpg`, a row of pictures, and the same row in the
 * colours of their slots for each drawing, `step_000123.jpg`. Reads the run's own state on the device and changes
 * nothing of it. Null where the run has no teacher as this project has it, no readable picture or no memory left.
 */
export const slotPictures = Effect.fn("slotPictures")(function* (
  config: Config,
  images: readonly string[],
  run: { readonly state: StateBuilder; readonly buffers: DeviceState; readonly lastStep: number },
) {
  const size = config.imageSize;
  const { teacher, graph } = slotGraph(config);
  const known = (name: string) => run.state.declared.get(name)?.tensor.shape ?? [NaN];
  if (![...teacher.declared.values()].every(({ name, tensor }) => sameShape(known(name), tensor.shape))) {
    return null;
  }
  const pictures = yield* spreadOut(images, size);
  if (pictures.length === 0) return null;
  const program = yield* compile(graph, run.buffers).pipe(
    Effect.catch(({ message }) =>
      Effect.as(Effect.logWarning(`${message}. The run shows no slot maps.`), null)
    ),
  );
  if (program === null) return null;

  const folder = join(config.outputDir, "slot_maps");
  const write = Effect.fnUntraced(function* (name: string, row: readonly Picture[]) {
    const picture = yield* Effect.promise(() => jpeg(row));
    yield* Effect.tryPromise({
      try: () => Deno.mkdir(folder, { recursive: true }),
      catch: (error) => error as Error,
    }).pipe(
      Effect.andThen(writeWholeFile(join(folder, name), [picture.file])),
      Effect.catch(({ message }) => Effect.logWarning(`Cannot write "${join(folder, name)}": ${message}`)),
    );
    return picture;
  });
  const words = size * size;
  const pixels = new Uint32Array(PICTURES * words); // of pictures that are missing, black
  pictures.forEach((picture, i) => pack(picture, pixels.subarray(i * words, (i + 1) * words)));
  const colors = distinctColors(config.numPrototypes);
  const every = Math.max(FEWEST_STEPS, Math.ceil(run.lastStep / DRAWINGS));
  let isFirst = true;
  return {
    deviceBytes: besideState(program.plan),
    due: (done) => done % every === 0 || done === run.lastStep,
    draw: (done) =>
      program.run({ pictures: pixels }).pipe(
        Effect.map(Effect.flatMap(({ slots }) =>
          Effect.gen(function* () {
            if (isFirst) yield* write("pictures.jpg", pictures);
            isFirst = false;
            const row = pictures.map((picture, i) =>
              tinted(picture, slots.subarray(i * words, (i + 1) * words), colors)
            );
            return yield* write(`step_${String(done).padStart(6, "0")}.jpg`, row);
          })
        )),
      ),
  } satisfies SlotPictures as SlotPictures;
});

/** Pictures from all over the list, framed as evaluations do; files that cannot be decoded are passed over. */
const spreadOut = (images: readonly string[], imageSize: number) => {
  const count = Math.min(PICTURES, images.length);
  const share = images.length / count;
  return Effect.forEach(Array.from({ length: count }).keys(), (i) => {
    const first = Math.floor(i * share);
    const candidates = images.slice(first, Math.min(first + TRIES, Math.floor((i + 1) * share)));
    return Effect.firstSuccessOf(candidates.map((file) => readPicture(file))).pipe(
      Effect.map((picture) => [framed(picture, evaluationFrame(imageSize))]),
      Effect.orElseSucceed(() => []),
    );
  }).pipe(Effect.map((found) => found.flat()));
};

/** Pictures of one size side by side. */
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
