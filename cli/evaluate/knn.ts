import { basename } from "node:path";
import { Console, Effect } from "effect";
import { Command, Flag } from "effect/cli";
import { layers } from "../../ops/runtime/adapters.ts";
import { evaluateKnn } from "../../pipeline/eval/evaluate_knn.ts";
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
import {
  checkpoint,
  common,
  dataDir,
  EvaluationFlagError,
  expectAtLeast,
  expectCommon,
  which,
} from "./options.ts";
import { layerProgress, writeEvaluation } from "./output.ts";

export const knn = Command.make(
  "knn",
  {
    checkpoint,
    dataDir: dataDir("train/<class>/* and val/<class>/*, as ImageNet has them"),
    k: Flag.String("k").pipe(
      Flag.withMetavar("K,K,…"),
      Flag.withDescription("how many neighbours vote; several numbers give several scores"),
      Flag.withDefault("20,200"),
    ),
    temperature: Flag.Finite("temperature").pipe(
      Flag.withDescription("a neighbour's vote weighs exp(cosine / temperature)"),
      Flag.withDefault(0.07),
    ),
    which,
    ...common,
  },
  Effect.fn(function* ({ checkpoint: file, ...flags }) {
    yield* expectCommon(flags);
    const neighbours = yield* numbersOf(flags.k);
    yield* expectAtLeast({ temperature: [flags.temperature, 1e-4] });
    const { encoder, imageSize, folders, files, about: begun } = yield* begin("knn", file, flags);
    const about = { ...begun, temperature: flags.temperature, seed: flags.seed };

    const { results, pictures } = yield* Effect.gen(function* () {
      const batch = Math.min(flags.batchSize, folders.val.length);
      const descriptors = yield* descriptorsOf(encoder, {
        seed: flags.seed,
        per: "picture",
        imageSize,
        batch,
      });
      return yield* evaluateKnn({
        ...{ folders, descriptors, neighbours, batch },
        temperature: flags.temperature,
        frame: evaluationFrame(imageSize),
      });
    }).pipe(Effect.provide([layers[flags.device], layerProgress]), Effect.scoped);

    const accuracies = classAccuracies(folders.classes, pictures);
    yield* Console.log([
      `${bold(file)}: ${about.is}`,
      `${about.train} pictures of ${about.classCount} classes vote for ${about.val} others`,
      "",
      table([
        ["k nearest neighbours, weighted", "k", "top-1", "top-5"],
        ...results.map(({ method, k, top1, top5 }) => [method, String(k), top1.toFixed(3), top5.toFixed(3)]),
      ]),
    ].join("\n"));
    const page = pageOf({
      title: `Nearest neighbours: ${basename(file)}`,
      facts: [
        ["checkpoint", `${file}, ${about.is}`],
        [
          "data",
          `${about.data}: ${about.train} pictures of ${about.classCount} classes vote for ${about.val} others`,
        ],
        ["shown at", `${imageSize} × ${imageSize} pixels`],
      ],
      body: [
        html`
          <h2>Scores</h2>
          <p>Share of the pictures whose class has the most votes, or is among the five with the most.
          Chance is ${(1 / about.classCount).toFixed(3)} for the first.</p>
        `,
        pageTable(
          ["", "k", "top-1", "top-5"],
          results.map(({ method, k, top1, top5 }) => [method, k, bar(top1), bar(top5)]),
        ),
        ...yield* surestPictures(folders.classes, pictures, ({ nearest }) => nearest),
        classTable(accuracies),
      ],
    });
    yield* writeEvaluation(files, {
      ...about,
      results,
      classes: accuracies,
      pictures: namedPictures(folders.classes, pictures),
    }, page);
  }, Effect.scoped),
).pipe(
  Command.withDescription(
    "Classify pictures by those that the frozen encoder sees as most alike: mean of the last feature map, cosine, k nearest " +
      "neighbours with weights exp(cosine / temperature) (Wu et al. 2018). Nothing is trained. Beside the checkpoint stand " +
      "the same encoder untrained, and colour histograms.",
  ),
  Command.withShortDescription("Classify by nearest neighbours of frozen features: top-1, top-5"),
  Command.withExamples([{
    command:
      "slotcon evaluate knn runs/imagenet/checkpoints/step_500000.safetensors --data-dir datasets/imagenet",
    description: "ImageNet, with 20 and with 200 neighbours",
  }]),
);

const numbersOf = Effect.fnUntraced(function* (text: string) {
  const numbers = text.split(",").map(Number);
  if (numbers.every((k) => Number.isInteger(k) && k >= 1)) return numbers;
  return yield* new EvaluationFlagError({
    flag: "--k",
    expected: "whole numbers from 1 on with commas between them, such as 20,200",
    found: `"${text}"`,
  });
});
