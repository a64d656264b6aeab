import { basename, resolve } from "node:path";
import { Console, Effect, Option } from "effect";
import { Argument, Command, Flag } from "effect/cli";
import { statOf } from "../data/files/exists.ts";
import { writeWholeFile } from "../data/files/write_whole_file.ts";
import type { StoredTensor } from "../data/formats/file_tensor.ts";
import { convert as convertWeights, FORMATS } from "../pipeline/convert.ts";
import { writtenBytes } from "../pipeline/run/bytes.ts";
import { table } from "../pipeline/run/table.ts";
import { openWeights, type WeightsFile } from "../pipeline/weights/weights_file.ts";
import { recipeFlag, whichFlag } from "./flags/common_flags.ts";
import { UsageError } from "./flags/usage_error.ts";
import { dim } from "./terminal/color.ts";
import { doingNow } from "./terminal/doing.ts";
import { whatItIs } from "./terminal/weights_in_words.ts";

export const convert = Command.make(
  "convert",
  {
    input: Argument.String("in").pipe(
      Argument.withDescription("file of weights; its content decides what it is"),
    ),
    output: Argument.String("out").pipe(Argument.withDescription("file to write"), Argument.optional),
    to: Flag.Literals("to", FORMATS).pipe(
      Flag.withDescription(
        "slotcon, pth: a whole run for this project or the published code. Of an encoder: backbone (torchvision's names, " +
          ".pth), mmseg (mmsegmentation, .pth), detectron2 (.pkl), safetensors, onnx. Of a segmentor: mmseg-segmentor " +
          "(mmsegmentation, .pth), onnx",
      ),
      Flag.optional,
    ),
    which: whichFlag,
    recipe: recipeFlag,
    list: Flag.Boolean("list").pipe(
      Flag.withDescription("print names, types and shapes of all tensors instead"),
      Flag.withDefault(false),
    ),
  },
  Effect.fn(function* ({ input, list, which, recipe, ...flags }) {
    yield* doingNow(`Converting ${input}`);
    const weights = yield* openWeights(input);
    if (list) return yield* Console.log(listing(weights));
    const output = Option.getOrNull(flags.output), to = Option.getOrNull(flags.to);
    if (output === null || to === null) {
      const missing = output === null ? "the file to write" : `--to ${FORMATS.join("|")}`;
      return yield* refuse(`expected ${missing}, found nothing`);
    }
    yield* expectNew(output, input);
    const { pieces, notes } = yield* convertWeights(weights, {
      ...{ to, which },
      recipe: Option.getOrNull(recipe),
    });
    yield* writeWholeFile(output, pieces).pipe(
      Effect.mapError(({ message }) => refuse(`cannot write "${output}": ${message}`)),
    );
    for (const note of notes) yield* Console.error(`slotcon: ${note}`);
    const bytes = pieces.reduce((sum, piece) => sum + piece.length, 0);
    yield* Console.log(`${output}: ${writtenBytes(bytes)}, ${to}, from ${whatItIs(weights)}`);
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Carry weights between this project and others. Reads checkpoints of this project and of the published code, " +
      "backbones and other ResNets of PyTorch (zip and legacy .pth), detectron2's .pkl, and safetensors; nothing in a " +
      "file is executed. The same input gives the same bytes.",
  ),
  Command.withShortDescription("Carry weights to and from other tools"),
  Command.withExamples([
    {
      command: "slotcon convert runs/coco/checkpoints/step_184800.safetensors coco.pkl --to detectron2",
      description: "The teacher's encoder for fine-tuning in detectron2",
    },
    {
      command: "slotcon convert ckpt_epoch_800.pth encoder.onnx --to onnx",
      description: "A published encoder for ONNX runtimes",
    },
    { command: "slotcon convert resnet50.pth --list", description: "What is in a file" },
  ]),
);

const refuse = (reason: string, remedy?: string) => new UsageError({ subject: "OUT", reason, remedy });

/** Fails where writing the output would lose what is there. */
const expectNew = Effect.fnUntraced(function* (output: string, input: string) {
  const found = yield* Effect.sync(() => statOf(output));
  if (found === null) return;
  const what = resolve(output) === resolve(input)
    ? "is the input itself"
    : found.isDirectory
    ? "is a folder"
    : "exists";
  return yield* refuse(`"${output}" ${what}`, "name another file");
});

const listing = (weights: WeightsFile): string => {
  const size = ({ dtype, shape }: StoredTensor) => [dtype.toLowerCase(), `[${shape.join(", ")}]`];
  const rows = [...weights.tensors].map(([name, tensor]) => [name, ...size(tensor)]);
  return `${table(rows)}\n${dim(`${basename(weights.file)}: ${rows.length} tensors, ${whatItIs(weights)}`)}`;
};
