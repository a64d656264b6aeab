/**
 * Which of several variants of its kernels an op uses: the first guess for the adapter, or the one that tuning found.
 */
import { Context } from "effect";
import { bytesOf, type Kernel } from "../graph/kernel.ts";
import type { AdapterReport, Variants } from "../graph/lowering.ts";
import { sizeOf } from "../graph/shape.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { fusedInputsOfAll, fusedLabel } from "./fused_inputs.ts";
import { isFused } from "./graph.ts";

/** The name of the variant to use for a kind of work, see `workOf`; undefined where none is known to be the best. */
export type Choices = (work: string, variants: readonly string[]) => string | undefined;

/** Takes the first variant of everything. */
export const GUESSED: Choices = (): undefined => undefined;

/** What tuning has found for an adapter; nothing unless it is provided. Read whenever a program is compiled. */
export const TunedChoices: Context.Reference<(adapter: AdapterReport) => Choices> = Context.Reference<
  (adapter: AdapterReport) => Choices
>("slotcon/TunedChoices", { defaultValue: () => () => GUESSED });

/** A kind of work that has several variants, and the variant that was taken. */
export interface Choice {
  /** What there is to do, see `workOf`. */
  readonly work: string;
  /** A tensor that takes this work. */
  readonly produces: Tensor;
  /** Their names, the first guess first. */
  readonly variants: readonly string[];
  /** The one that was taken. */
  readonly chosen: string;
  /** Whether tuning has found it. */
  readonly tuned: boolean;
}

/**
 * Describes the work of computing `members` together, as far as time depends on it; tuning remembers the fastest
 * variant under this text. Of fused kernels: the ops, the shape, and the sizes of what they read. Of all others: the op
 * with its attributes and the shapes of its inputs. An h marks tensors in half precision.
 */
export const workOf = (
  members: readonly OpTensor[],
  isInlined: (x: Tensor) => boolean,
  isHalf: (x: Tensor) => boolean,
): string => {
  const [first] = members;
  const marked = (size: string | number, x: Tensor) => `${size}${isHalf(x) ? "h" : ""}`;
  if (isFused(first)) {
    const read = new Set(fusedInputsOfAll(members, isInlined)!.map(({ tensor }) => tensor));
    const sizes = [...read].map((x) => marked(sizeOf(x.shape), x));
    return `${fusedLabel(members)} [${first.shape.join()}] of ${sizes.sort().join(", ")}`;
  }
  const { op, inputs, attributes } = first.source;
  const shapes = inputs.map((x) => marked(`[${x.shape.join()}]`, x));
  return [op.name, ...shapes, ...attributes === undefined ? [] : [JSON.stringify(attributes)]].join(" ");
};

/**
 * Chooses among variants for a tensor, and notes the choice where there is more than one. A variant whose scratch memory is
 * larger than one binding gives way to the first one that fits, if any does.
 */
export const chooser = (
  { produces, work, choices, maxBinding, note }: {
    readonly produces: Tensor;
    readonly work: () => string;
    readonly choices: Choices;
    readonly maxBinding: number;
    readonly note: (choice: Choice) => void;
  },
): (variants: Variants) => readonly Kernel[] =>
(variants) => {
  const names = Object.keys(variants);
  if (names.length === 1) return variants[names[0]]();
  const description = work();
  const wanted = choices(description, names);
  const known = wanted !== undefined && names.includes(wanted);
  const first = known ? wanted : names[0];
  const noted = (chosen: string, kernels: readonly Kernel[]) => {
    note({ work: description, produces, variants: names, chosen, tuned: known && chosen === wanted });
    return kernels;
  };
  const kernels = variants[first]();
  if (fitsBindings(kernels, maxBinding)) return noted(first, kernels);
  for (const name of names.filter((name) => name !== first)) {
    const others = variants[name]();
    if (fitsBindings(others, maxBinding)) return noted(name, others);
  }
  return noted(first, kernels); // refused by `overLimit`
};

const fitsBindings = (kernels: readonly Kernel[], maxBinding: number): boolean =>
  kernels.every(({ bindings }) => bindings.every(({ operand }) => bytesOf(operand) <= maxBinding));
