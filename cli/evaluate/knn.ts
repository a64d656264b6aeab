import { Effect } from "effect";
import { Command, Flag } from "effect/cli";
import { evaluateKnn } from "../../pipeline/eval/evaluate_knn.ts";
import { whichFlag } from "../flags/common_flags.ts";
import { expectWithin, UsageError } from "../flags/usage_error.ts";
import { classify } from "./classification.ts";
import { checkpointOperand, commonFlags, dataDirFlag } from "./flags.ts";

export const knn = Command.make(
  "knn",
  {
    checkpoint: checkpointOperand,
    dataDir: dataDirFlag("train/<class>/* and val/<class>/*, as ImageNet has them"),
    k: Flag.String("k").pipe(
      Flag.withMetavar("K,K,…"),
      Flag.withDescription("how many neighbours vote; several numbers give several scores"),
      Flag.withDefault("20,200"),
    ),
    temperature: Flag.Finite("temperature").pipe(
      Flag.withDescription("a neighbour's vote weighs exp(cosine / temperature)"),
      Flag.withDefault(0.07),
    ),
    which: whichFlag,
    ...commonFlags,
  },
  Effect.fn(function* ({ checkpoint, ...flags }) {
    const { temperature, seed } = flags;
    const neighbours = yield* numbersOf(flags.k);
    yield* expectWithin({ temperature: [temperature, 1e-4] });
    yield* classify(checkpoint, flags, {
      name: "knn",
      title: "Nearest neighbours",
      options: { temperature, seed },
      evaluate: (shown) => evaluateKnn({ ...shown, neighbours, temperature }),
      use: ({ train, val, classes }) => `${train} pictures of ${classes} classes vote for ${val} others`,
      facts: [],
      shares: "has the most votes, or is among the five with the most",
      titles: ["k nearest neighbours, weighted", "k", "top-1", "top-5"],
      scores: ({ k, top1, top5 }) => [String(k), top1, top5],
      neighbours: ({ nearest }) => nearest,
    });
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
  const expected = "whole numbers from 1 on with commas between them, such as 20,200";
  return yield* new UsageError({ subject: "--k", reason: `expected ${expected}, found "${text}"` });
});
