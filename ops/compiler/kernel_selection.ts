/** Which of several variants of its kernels an op uses: guessed for the adapter, or known from tuning (tune.ts). */
import { Context } from "effect";
import type { Kernel } from "../graph/kernel.ts";
import type { AdapterReport, Variants } from "../graph/lowering.ts";
import type { Tensor } from "../graph/tensor.ts";

/** The name of the variant to use for a piece of work, which `workOf` describes; undefined where nothing is known. */
export type Choices = (work: string, variants: readonly string[]) => string | undefined;

export const GUESSED: Choices = () => undefined;

/** What tuning has found for an adapter; nothing unless it is provided. Read whenever a program is compiled. */
export const TunedChoices = Context.Reference<(adapter: AdapterReport) => Choices>("slotcon/TunedChoices", {
  defaultValue: () => () => GUESSED,
});

/** A piece of work that can be done in several ways, and the way that was taken. */
export interface Choice {
  readonly work: string;
  /** A tensor that takes this work to make. */
  readonly makes: Tensor;
  readonly variants: readonly string[];
  readonly chosen: string;
  readonly tuned: boolean;
}

/**
 * Describes what it takes to make `x`, as far as time depends on it: the op with its attributes, and the shapes of its
 * inputs, those in half precision marked.
 */
export const workOf = (x: Tensor, inHalf: readonly boolean[]): string => {
  if (x.source.kind !== "op") throw new Error("only what comes from an op takes work");
  const { op, inputs, attributes } = x.source;
  const shapes = inputs.map(({ shape }, i) => `[${shape.join()}]${inHalf[i] ? "h" : ""}`);
  return `${op.name} ${
    [...shapes, ...attributes === undefined ? [] : [JSON.stringify(attributes)]].join(" ")
  }`;
};

/** Chooses how to make a tensor, and notes what was chosen where there is a choice. */
export const chooser = (
  makes: Tensor,
  describe: () => string,
  choices: Choices,
  note: (choice: Choice) => void,
) =>
(variants: Variants): readonly Kernel[] => {
  const names = Object.keys(variants);
  if (names.length === 1) return variants[names[0]]();
  const work = describe();
  const wanted = choices(work, names);
  const tuned = wanted !== undefined && names.includes(wanted);
  const chosen = tuned ? wanted : names[0];
  note({ work, makes, variants: names, chosen, tuned });
  return variants[chosen]();
};
