/** What the step of a task needs of an adapter, found without a device. */
import type { Graph } from "../../ops/compiler/graph.ts";
import { type Choices, GUESSED } from "../../ops/compiler/kernel_selection.ts";
import { overLimit } from "../../ops/compiler/limits.ts";
import { lower, type Recomputed } from "../../ops/compiler/lower.ts";
import type { MemoryPlan } from "../../ops/compiler/memory_plan.ts";
import { bytesOf } from "../../ops/graph/kernel.ts";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { inputName } from "../../ops/graph/tensor.ts";
import { lacksHalf } from "../../ops/runtime/gpu.ts";
import type { Upload } from "../../ops/runtime/program.ts";
import type { StateBuilder } from "../model/state_builder.ts";
import { singleProcess, type Sync } from "../ranks/sync.ts";
import { explained } from "./advice.ts";
import type { RunConfig } from "./options.ts";

/** The step of a task as those take it that plan, tune or time it and train nothing. */
export interface TaskStep<C extends RunConfig> {
  /** Builds the step of a rank, whose share of a batch is `batchSize`. Throws a ShapeError where sizes do not fit. */
  readonly build: (config: C, traits: AdapterTraits, sync: Sync) => BuiltStep;
  /** Bytes of device memory that a run takes besides its step, by their use. */
  readonly besides: (config: C, traits: AdapterTraits) => Readonly<Record<string, number>>;
  /** Inputs for timing the step; what is in them does not change its time. */
  readonly sample: (config: C, traits: AdapterTraits) => Readonly<Record<string, Upload>>;
  /** The options that say how large the step is, in words. */
  readonly words: (config: C) => string;
}

/** A step: its graph, and the state that the graph declares. */
export interface BuiltStep {
  /** The state, with its next values. */
  readonly state: StateBuilder;
  /** The graph, with its outputs and updates. */
  readonly graph: Graph;
}

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
  /** Bytes that the run takes besides, by their use. */
  readonly besides: Readonly<Record<string, number>>;
  /** What is computed twice because of the memory limit. */
  readonly recomputed: Recomputed;
  /** The five largest kinds of buffers: the largest tensor in each, bytes of a buffer, and buffers of this kind. */
  readonly largest: readonly { readonly tensor: string; readonly bytes: number; readonly count: number }[];
  /** Buffers that are larger than one binding, and so are bound in slices. */
  readonly sliced: number;
  /** Why the adapter cannot run the step, or null. */
  readonly refusal: string | null;
}

/** The step of a run and, within a memory limit, what others take of it. */
export const limitedStep = <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  traits: AdapterTraits,
  sync: Sync = singleProcess,
): BuiltStep => {
  const { state, graph } = step.build(config, traits, sync);
  const memoryTaken = config.memoryLimit === null ? 0 : sum(step.besides(config, traits));
  return { state, graph: { ...graph, memoryTaken } };
};

/**
 * Plans the step of `config` for an adapter of these traits and limits: half a second for the published runs, a few
 * seconds where memory is limited. Throws a ShapeError where sizes of the configuration do not fit together.
 */
export const planStep = <C extends RunConfig>(
  step: TaskStep<C>,
  config: C,
  traits: AdapterTraits,
  limits: Readonly<Record<string, number>>,
  choices: Choices = GUESSED,
): StepPlan => {
  const { state, graph } = limitedStep(step, config, traits);
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
    besides: step.besides(config, traits),
    recomputed,
    largest: [...alike].slice(0, 5).map(([tensor, all]) => ({
      tensor,
      bytes: all[0].bytes,
      count: all.length,
    })),
    sliced: buffers.filter(({ bytes }) => bytes > traits.maxBinding).length,
    refusal: graph.precision === "f16" && !traits.shaderF16
      ? explained(lacksHalf(graph.label, "this adapter"))
      : refusal && explained(refusal),
  };
};

const sum = (bytes: Readonly<Record<string, number>>) =>
  Object.values(bytes).reduce((total, each) => total + each, 0);
