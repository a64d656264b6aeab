import { basename } from "node:path";
import { Console, Effect } from "effect";
import { Command } from "effect/cli";
import { layers } from "../../ops/runtime/adapters.ts";
import { evaluateLinear } from "../../pipeline/eval/evaluate_linear.ts";
import { evaluationFrame } from "../../pipeline/inference/framed.ts";
import { table } from "../../pipeline/run/table.ts";
import { bar, html, pageOf, pageTable } from "../pages/page.ts";
import { bold } from "../terminal/color.ts";
import {
  begin,
  classAccuracies,
  classTable,
  descriptorsOf,
  namedPictures,
  surestPictures,
} from "./classification.ts";
import { checkpoint, common, dataDir, expectCommon, expectTraining, training, which } from "./options.ts";
import { layerProgress, writeEvaluation } from "./output.ts";

/** Rows of features that the layer learns from at a time: few pictures still make many steps. */
const rowsPerStep = (pictures: number) => Math.min(256, Math.ceil(pictures / 20));

export const linear = Command.make(
  "linear",
  {
    checkpoint,
    dataDir: dataDir("train/<class>/* and val/<class>/*, as ImageNet has them"),
    which,
    ...training(100),
    ...common,
  },
  Effect.fn(function* ({ checkpoint: file, ...flags }) {
    yield* expectCommon(flags);
    yield* expectTraining(flags);
    const { encoder, imageSize, folders, files, about: begun } = yield* begin("linear", file, flags);
    const { epochs, lr, momentum, weightDecay, seed } = flags;
    const about = { ...begun, epochs, lr, momentum, weightDecay, seed };

    const { results, pictures } = yield* Effect.gen(function* () {
      const batch = Math.min(flags.batchSize, folders.val.length);
      const descriptors = yield* descriptorsOf(encoder, { seed, per: "picture", imageSize, batch });
      return yield* evaluateLinear({
        ...{ folders, descriptors, batch },
        training: {
          epochs,
          batchSize: rowsPerStep(folders.train.length),
          rate: lr,
          momentum,
          weightDecay,
          seed,
        },
        frame: evaluationFrame(imageSize),
      });
    }).pipe(Effect.provide([layers[flags.device], layerProgress]), Effect.scoped);

    const accuracies = classAccuracies(folders.classes, pictures);
    yield* Console.log([
      `${bold(file)}: ${about.is}`,
      `trained on ${about.train} pictures of ${about.classCount} classes, scored on ${about.val} others`,
      "",
      table([
        ["a linear layer on", "top-1", "top-5", "training loss"],
        ...results.map(({ method, top1, top5, loss }) => [
          method,
          ...[top1, top5, loss].map((value) => value.toFixed(3)),
        ]),
      ]),
    ].join("\n"));
    const page = pageOf({
      title: `Linear classification: ${basename(file)}`,
      facts: [
        ["checkpoint", `${file}, ${about.is}`],
        [
          "data",
          `${about.data}: trained on ${about.train} pictures of ${about.classCount} classes, scored on ${about.val} others`,
        ],
        ["shown at", `${imageSize} × ${imageSize} pixels`],
        [
          "training",
          `${epochs} epochs, learning rate ${lr}, momentum ${momentum}, weight decay ${weightDecay}`,
        ],
      ],
      body: [
        html`
          <h2>Scores</h2>
          <p>Share of the pictures whose class is the likeliest, or among the five likeliest. Chance is ${(1 /
            about.classCount).toFixed(3)} for the first.</p>
        `,
        pageTable(
          ["a linear layer on", "top-1", "top-5", "training loss"],
          results.map(({ method, top1, top5, loss }) => [method, bar(top1), bar(top5), loss.toFixed(3)]),
        ),
        ...yield* surestPictures(folders.classes, pictures, () => []),
        classTable(accuracies),
      ],
    });
    const all = namedPictures(folders.classes, pictures);
    yield* writeEvaluation(files, { ...about, results, classes: accuracies, pictures: all }, page);
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Classify pictures by a linear layer on the frozen encoder's features (mean of the last feature map, standardised), " +
      "trained by SGD without augmentation. The features of the training pictures are held in memory. Beside the checkpoint " +
      "stand the same encoder untrained, and colour histograms.",
  ),
  Command.withShortDescription("Classify by a linear layer on frozen features: top-1, top-5"),
  Command.withExamples([{
    command:
      "slotcon evaluate linear resnet50.pth --data-dir datasets/flowers --output flowers.json --image-size 224",
    description: "A backbone of another project on pictures in folders",
  }]),
);
