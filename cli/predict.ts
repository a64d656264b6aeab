import { basename, dirname, join, relative, resolve } from "node:path";
import { Console, Effect, Stream } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import sharp from "sharp";
import { listImages } from "../data/datasets/image_list.ts";
import { statOf } from "../data/files/exists.ts";
import { writeWholeFile } from "../data/files/write_whole_file.ts";
import { readUpright } from "../data/images/decode_image.ts";
import type { Picture } from "../data/images/picture.ts";
import { indexedPng } from "../data/images/png.ts";
import { release } from "../data/images/release.ts";
import { layers } from "../ops/runtime/adapters.ts";
import { EvaluationProgress } from "../pipeline/eval/progress.ts";
import { savedSegmenter } from "../pipeline/transfer/segmentation/segment.ts";
import type { SavedSegmentor } from "../pipeline/transfer/segmentation/weights.ts";
import { wholeImages } from "../pipeline/transfer/segmentation/whole_images.ts";
import { tinted } from "../pipeline/visualize/tinted.ts";
import { openWeights } from "../pipeline/weights/weights_file.ts";
import { layerProgress } from "./evaluate/output.ts";
import { deviceFlag } from "./flags/common_flags.ts";
import { segmentorFlags, segmentorFrom } from "./flags/segmentor_flags.ts";
import { UsageError } from "./flags/usage_error.ts";
import { heardGpu } from "./terminal/doing.ts";
import { withoutFlags } from "../data/files/regular_file.ts";
import { whatItIs } from "./terminal/weights_in_words.ts";

export const predict = Command.make(
  "predict",
  {
    checkpoint: Argument.String("checkpoint").pipe(
      Argument.withDescription(
        "segmentor: a checkpoint of slotcon transfer segmentation, or mmsegmentation's",
      ),
    ),
    pictures: Argument.String("picture").pipe(
      Argument.withDescription("pictures of any size, or folders of them"),
      Argument.variadic({ min: 1 }),
    ),
    output: Flag.String("output").pipe(
      Flag.withMetavar("DIR"),
      Flag.withDescription(
        "folder for labels/ (PNG, a pixel's value is its class), overlays/ and classes.yaml",
      ),
    ),
    ...segmentorFlags,
    device: deviceFlag,
  },
  Effect.fn(function* ({ checkpoint, pictures, output, device, ...flags }) {
    const weights = yield* openWeights(checkpoint);
    const saved = yield* segmentorFrom(weights, flags);
    const named = yield* namedPictures(pictures, output);
    yield* write(join(output, "classes.yaml"), [classFile(saved)]);
    const done = yield* predictAll(saved, named, output).pipe(
      Effect.provide([heardGpu(layers[device]), layerProgress]),
    );
    const left = named.length - done;
    yield* Console.log(
      `${output}: the classes of ${done} picture${done === 1 ? "" : "s"} in labels/, overlays in overlays/` +
        `${left === 0 ? "" : `; ${left} left out`}, by ${whatItIs(weights)}`,
    );
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Predict the class of every pixel of pictures with a segmentor. For each picture there is a label map of its size " +
      "(8-bit PNG, whose palette has the classes' colours) and the picture tinted in these colours. Pictures that cannot be " +
      "decoded are named and left out.",
  ),
  Command.withShortDescription("Predict the classes of pictures' pixels"),
  Command.withExamples([
    {
      command: "slotcon predict runs/voc/checkpoints/best.safetensors cat.jpg street.png --output predicted",
      description: "Two pictures",
    },
    {
      command: "slotcon predict iter_80000.pth photos --recipe ade20k --output predicted",
      description: "All pictures in a folder, by a segmentor of mmsegmentation's",
    },
  ]),
);

/** A picture, and what its predictions are called: a path without suffix. */
interface NamedPicture {
  readonly file: string;
  readonly name: string;
}

/** The files that a picture's predictions are written to. */
const targets = (output: string, { name }: NamedPicture) => ({
  labels: join(output, "labels", `${name}.png`),
  overlay: join(output, "overlays", `${name}.jpg`),
});

/**
 * The pictures that operands name, each once. Those of a folder are called by their paths in it; where two would be called
 * the same, the second is called `name-2`. Fails where predictions would replace a picture.
 */
const namedPictures = Effect.fnUntraced(function* (operands: readonly string[], output: string) {
  const found = new Map<string, NamedPicture>(); // by path
  const taken = new Set<string>(); // in lower case, which some file systems do not tell from upper case
  const add = (file: string, path: string) => {
    const base = path.replace(/\.[^./\\]*$/, "");
    if (found.has(resolve(file))) return;
    let name = base;
    for (let i = 2; taken.has(name.toLowerCase()); i++) name = `${base}-${i}`;
    taken.add(name.toLowerCase());
    found.set(resolve(file), { file, name });
  };
  const isOwn = (file: string) =>
    // of an earlier prediction
    ["labels", "overlays"].some((part) =>
      !relative(join(resolve(output), part), resolve(file)).startsWith("..")
    );
  for (const operand of operands) {
    if (statOf(operand)?.isDirectory !== true) add(operand, basename(operand));
    else {
      for (const file of yield* listImages({ dataset: "Folder", dataDir: operand })) {
        if (!isOwn(file)) add(file, relative(operand, file));
      }
    }
  }
  const pictures = [...found.values()];
  const replaced = pictures.flatMap((picture) => Object.values(targets(output, picture)))
    .find((target) => found.has(resolve(target)));
  if (replaced !== undefined) yield* refuse(`"${replaced}" is one of the pictures`, "name another folder");
  return pictures;
});

/** The classes in the form that slotcon transfer segmentation reads; JSON is YAML. */
const classFile = ({ classes }: SavedSegmentor): Uint8Array<ArrayBuffer> => {
  const rows = classes.map(({ name, color }) => `  - ${JSON.stringify({ name, color })}`);
  return new TextEncoder().encode(`classes:\n${rows.join("\n")}\n`);
};

/** Predicts all pictures and returns how many could be read. Fails where none could, or nothing can be written. */
const predictAll = Effect.fnUntraced(function* (
  saved: SavedSegmentor,
  pictures: readonly NamedPicture[],
  output: string,
) {
  const progress = yield* EvaluationProgress;
  const segment = yield* savedSegmenter(saved);
  const colors = saved.classes.map(({ color }) => color);
  const bad: string[] = [];
  yield* wholeImages(pictures.map(({ file }) => ({ image: file })), saved.config).pipe(
    Stream.runForEach(Effect.fnUntraced(function* (image) {
      const { index } = image;
      const leaveOut = (reason: string) => {
        bad.push(reason);
        return Console.error(`slotcon: ${reason}. It is left out.`);
      };
      if (image.kind === "bad file") yield* leaveOut(image.reason);
      else {
        const { pixels, width, height, original } = image;
        const samples = yield* segment({
          pixels,
          size: [height, width],
          original: [original.height, original.width],
        });
        release(pixels);
        const { labels, overlay } = targets(output, pictures[index]);
        yield* readUpright(pictures[index].file).pipe(
          Effect.map((picture) => tinted(picture, samples, colors)),
          Effect.flatMap(jpeg),
          Effect.flatMap((bytes) =>
            write(overlay, [bytes]).pipe(
              Effect.andThen(write(labels, indexedPng({ ...original, samples }, colors))),
            )
          ),
          Effect.catchTag("DecodeError", ({ message }) => leaveOut(message)), // it has changed meanwhile
        );
      }
      yield* progress("predicting", index + 1, pictures.length);
    })),
  );
  if (bad.length < pictures.length) return pictures.length - bad.length;
  return yield* new UsageError({
    subject: "PICTURE",
    reason: pictures.length === 1 ? "it cannot be read" : `none of the ${pictures.length} can be read`,
  });
}, Effect.scoped);

/** The longest side that a JPEG can have. */
const LONGEST = 65_535;

const jpeg = ({ width, height, rgb }: Picture) =>
  Effect.promise(async () => {
    const picture = sharp(rgb, { raw: { width, height, channels: 3 } });
    const fitting = Math.max(width, height) > LONGEST
      ? picture.resize(LONGEST, LONGEST, { fit: "inside" })
      : picture;
    return new Uint8Array(await fitting.jpeg({ quality: 90 }).toBuffer());
  });

/** Writes a file as a whole, into a folder that may be new. */
const write = (file: string, pieces: readonly Uint8Array<ArrayBuffer>[]) =>
  Effect.tryPromise({
    try: () => Deno.mkdir(dirname(file), { recursive: true }),
    catch: withoutFlags,
  }).pipe(
    Effect.andThen(writeWholeFile(file, pieces)),
    Effect.catch(({ message }) => refuse(`cannot write "${file}": ${message}`)),
  );

const refuse = (reason: string, remedy?: string) =>
  Effect.fail(new UsageError({ subject: "--output", reason, remedy }));
