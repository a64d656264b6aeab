/** What a run's step needs of an adapter, found without a device. */
import { type Choices, GUESSED } from "../../ops/compiler/kernel_selection.ts";
import { overLimit } from "../../ops/compiler/limits.ts";
import { lower, type Recomputed } from "../../ops/compiler/lower.ts";
import type { MemoryPlan } from "../../ops/compiler/memory_plan.ts";
import { bytesOf } from "../../ops/graph/kernel.ts";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { inputName } from "../../ops/graph/tensor.ts";
import { lacksHalf } from "../../ops/runtime/gpu.ts";
import { explained } from "../run/advice.ts";
import type { Config } from "./config.ts";
import { slotPictureBytes } from "./slot_pictures.ts";
import { stepGraph } from "./step_graph.ts";

/** The plan of a run's step for an adapter. */
export interface StepPlan {
  /** Kernels of a step. */
  readonly kernels: number;
  /** Bytes of each group of tensors; of transient ones, at the peak. */
  readonly groups: MemoryPlan["groups"];
  /** Bytes in use at the peak. */
  readonly peakBytes: number;
  /** Bytes of device memory that the step reserves for the whole run. */
  readonly reservedBytes: number;
  /** Bytes that drawing slots now and then takes besides. */
  readonly slotPictureBytes: number;
  /** What is computed twice because of the memory limit. */
  readonly recomputed: Recomputed;
  /** The five largest kinds of buffers: the largest tensor in each, bytes of a buffer, and buffers of this kind. */
  readonly largest: readonly { readonly tensor: string; readonly bytes: number; readonly count: number }[];
  /** Buffers that are larger than one binding, and so are bound in slices. */
  readonly sliced: number;
  /** Why the adapter cannot run the step, or null. */
  readonly refusal: string | null;
}

/**
 * Plans the step of `config` for an adapter of these traits and limits: half a second for the published runs, a few
 * seconds where memory is limited. Throws a ShapeError where sizes of the configuration do not fit together.
 */
export const planStep = (
  config: Config,
  traits: AdapterTraits,
  limits: Readonly<Record<string, number>>,
  choices: Choices = GUESSED,
): StepPlan => {
  const slots = slotPictureBytes(config, traits);
  const { state, graph: step } = stepGraph(config, traits);
  const graph = { ...step, memoryTaken: slots };
  const lowered = lower(graph, traits, (name) => state.declared.has(name), choices);
  const { kernels, plan, recomputed, inputs, operandOf } = lowered;
  const buffers = [
    ...plan.slots.map(({ name, bytes }) => ({ tensor: name, bytes })),
    ...inputs.map((x) => ({ tensor: inputName(x), bytes: bytesOf(operandOf(x)) })),
  ].sort((a, b) => b.bytes - a.bytes);
  const refusal = overLimit(graph, lowered, limits);
  const alike = Map.groupBy(buffers, ({ tensor }) => tensor);
  return {
    kernels: kernels.length,
    groups: plan.groups,
    peakBytes: plan.needed,
    reservedBytes: plan.total,
    slotPictureBytes: slots,
    recomputed,
    largest: [...alike].slice(0, 5).map(([tensor, all]) => ({
      tensor,
      bytes: all[0].bytes,
      count: all.length,
    })),
    sliced: buffers.filter(({ bytes }) => bytes > traits.maxBinding).length,
    refusal: config.precision === "f16" && !traits.shaderF16
      ? explained(lacksHalf(graph.label, "this adapter"))
      : refusal && explained(refusal),
  };
};
