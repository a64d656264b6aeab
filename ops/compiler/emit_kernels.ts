/** Emission: the kernels of each step of a schedule. */
import { bytesOf, type Kernel, type Operand } from "../graph/kernel.ts";
import type { AdapterTraits, StatisticsEpilogue } from "../graph/lowering.ts";
import type { OpTensor, Tensor } from "../graph/tensor.ts";
import { shiftedSumsOfPartials, type StatisticsPartials } from "../kernels/batch_statistics.ts";
import type { BufferAssignment } from "./buffer_assignment.ts";
import type { EmissionContext } from "./emission_context.ts";
import { elementwiseKernels } from "./fused_kernels.ts";
import { columnSumKernels, rowSumKernels } from "./fused_reductions.ts";
import { isElementwise, isExchange } from "./graph.ts";
import { type Choice, type Choices, chooser, workOf } from "./kernel_selection.ts";
import { opKernels } from "./op_kernels.ts";
import { isRecomputed, type ScheduleStep } from "./schedule.ts";
import type { StatisticsRequest } from "./statistics_epilogue.ts";

/** What emission depends on. */
export interface EmissionOptions {
  readonly isInlined: (x: Tensor) => boolean;
  readonly inPlace: ReadonlyMap<Tensor, Tensor>;
  readonly depths: ReadonlyMap<Tensor, number>;
  readonly statistics: ReadonlyMap<Tensor, StatisticsRequest>;
  readonly buffers: BufferAssignment;
  readonly traits: AdapterTraits;
  readonly choices: Choices;
}

/** A kernel and what it is for. */
export interface EmittedKernel {
  readonly kernel: Kernel;
  /** The tensor that it works for: the first of those that a fused kernel computes. */
  readonly produces: OpTensor;
  /** See `ScheduleStep`. */
  readonly scheduledFor: OpTensor;
  /** The name of the variant that it belongs to; null where there is only one. */
  readonly variant: string | null;
}

/** The kernels of a schedule. */
export interface Emission {
  readonly emitted: readonly EmittedKernel[];
  /** All kinds of work that have several variants, each once. */
  readonly choices: readonly Choice[];
  /** For each sync depth how many kernels run before it. */
  readonly depthStarts: readonly number[];
  /** Bytes of scratch memory that the kernels of a tensor use. */
  readonly scratchBytes: ReadonlyMap<Tensor, number>;
}

/** Emits the kernels of each step, in order. Steps of exchanges have none. */
export const emitKernels = (steps: readonly ScheduleStep[], options: EmissionOptions): Emission => {
  const { buffers, depths } = options;
  const emitted: EmittedKernel[] = [];
  const choices = new Map<string, Choice>();
  const depthStarts: number[] = [];
  const scratchBytes = new Map<Tensor, number>();
  const prepared: Prepared = new Map();
  for (const step of steps) {
    const { members: [produces], scheduledFor } = step;
    while (depthStarts.length <= depths.get(scheduledFor)!) depthStarts.push(emitted.length);
    if (isExchange(produces)) continue;
    if (isRecomputed(step)) buffers.reassign(produces);

    let variant: string | null = null;
    const reserved: Operand[] = [];
    const context = contextOf(step, options, {
      noteScratch: (operand) => reserved.push(operand),
      noteChoice: (choice) => {
        choices.set(choice.work, choice);
        variant = choice.chosen;
      },
    });
    const kernels = kernelsOf(step.members, context, options.statistics, prepared);
    for (const kernel of kernels) emitted.push({ kernel, produces, scheduledFor, variant });
    // Variants that were turned down have reserved memory, too, which nothing uses.
    const used = reserved.filter((operand) => isBound(operand, kernels));
    scratchBytes.set(produces, used.reduce((sum, operand) => sum + bytesOf(operand), 0));
  }
  return { emitted, choices: [...choices.values()], depthStarts, scratchBytes };
};

/** What the generators of a step's kernels are given. */
const contextOf = (
  { members }: ScheduleStep,
  { isInlined, inPlace, buffers, traits, choices }: EmissionOptions,
  { noteScratch, noteChoice }: {
    readonly noteScratch: (operand: Operand) => void;
    readonly noteChoice: (choice: Choice) => void;
  },
): EmissionContext => ({
  isInlined,
  inPlace,
  operandOf: buffers.operandOf,
  adapter: traits,
  scratch: (shape, dtype) => {
    const operand = buffers.scratch(shape, dtype);
    noteScratch(operand);
    return operand;
  },
  choose: chooser({
    produces: members[0],
    work: () => workOf(members, isInlined, (x) => buffers.operandOf(x).dtype === "f16"),
    choices,
    maxBinding: traits.maxBinding,
    note: noteChoice,
  }),
});

/** What epilogues have written so far, by the reduction that takes it up. */
type Prepared = Map<Tensor, StatisticsPartials & Pick<StatisticsRequest, "of">>;

/** The kernels of one step. Where a GEMM takes statistics in its epilogue, adds to `prepared`. */
const kernelsOf = (
  members: readonly OpTensor[],
  context: EmissionContext,
  statistics: ReadonlyMap<Tensor, StatisticsRequest>,
  prepared: Prepared,
): readonly Kernel[] => {
  const [x] = members;
  const { operandOf, scratch } = context;
  const found = prepared.get(x);
  if (found !== undefined) return shiftedSumsOfPartials(operandOf(found.of), found, operandOf(x), scratch);
  if (isElementwise(x)) return elementwiseKernels(members, context);
  const { reduction } = x.source.op;
  if (reduction === "columns") return columnSumKernels(x, context);
  if (reduction === "rows") return rowSumKernels(x, context);
  const request = statistics.get(x);
  const kernels = opKernels(x, context, epilogueFor(request, prepared));
  const left = request && prepared.get(request.sums);
  if (left !== undefined && !isBound(left.partials, kernels)) prepared.delete(request!.sums); // of a variant turned down
  return kernels;
};

const isBound = ({ storage }: Operand, kernels: readonly Kernel[]): boolean =>
  kernels.some(({ bindings }) => bindings.some(({ operand }) => operand.storage === storage));

const epilogueFor = (
  request: StatisticsRequest | undefined,
  prepared: Prepared,
): StatisticsEpilogue | null =>
  request === undefined ? null : {
    rows: request.of.shape[1],
    emit: (partials, rowsPerPartial) =>
      void prepared.set(request.sums, { of: request.of, partials, rowsPerPartial }),
  };
