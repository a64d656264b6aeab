/** Whether an adapter can run a lowered graph. */
import { Data } from "effect";
import { bytesOf } from "../graph/kernel.ts";
import type { AdapterReport } from "../graph/lowering.ts";
import { inputName } from "../graph/tensor.ts";
import type { Graph } from "./graph.ts";
import type { Lowered } from "./lower.ts";

/** A graph needs more than its memory limit or the adapter allows. Known before anything runs. */
export class PlanError extends Data.Error<{
  /** Label of the graph. */
  readonly label: string;
  /** The tensor that is too large; null where it is the memory of all tensors together. */
  readonly tensor: string | null;
  /** Bytes. */
  readonly needs: number;
  /** Bytes. */
  readonly limit: number;
  /** Name of the limit: "memory limit", "largest buffer" or "largest binding". */
  readonly what: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "PlanError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done: completes "Cannot …". */
  get subject(): string {
    return this.tensor === null
      ? `run ${this.label} within ${roundedUp(this.limit, this.needs)} of device memory`
      : `run ${this.label} on this adapter as ${this.tensor} needs ${mebibytes(this.needs)}`;
  }
  /** Why not. */
  get reason(): string {
    return this.tensor === null
      ? `it takes ${roundedUp(this.needs, this.needs)} even where it computes twice what it can`
      : `its ${this.what} is ${mebibytes(this.limit)}`;
  }
  /** What to change. */
  get remedy(): string {
    return this.tensor === null
      ? "Raise the memory limit, or lower the batch size or the image size"
      : "Lower the batch size or the image size";
  }
  /** Subject, reason and remedy as a sentence or two. */
  override get message(): string {
    return `Cannot ${this.subject}: ${this.reason}. ${this.remedy}`;
  }
}

/** Bytes rounded up, in MiB, or in GiB where `compared` has as many. */
const roundedUp = (bytes: number, compared: number) => {
  const [unit, name] = compared < 2 ** 30 ? [2 ** 20, "MiB"] : [2 ** 30, "GiB"];
  return `${(Math.ceil(100 * bytes / unit) / 100).toFixed(2)} ${name}`;
};

const mebibytes = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

/** What a lowered graph needs beyond its memory limit or the limits of an adapter; null where it can run. */
export const overLimit = (
  { label, memoryLimit = Infinity, memoryTaken = 0 }: Graph,
  { kernels, plan, inputs, operandOf }: Lowered,
  limits: AdapterReport["limits"],
): PlanError | null => {
  const refuse = (tensor: string | null, needs: number, what: string, limit: number) =>
    new PlanError({ label, tensor, needs, what, limit });
  const needed = plan.total + memoryTaken;
  if (needed > memoryLimit) return refuse(null, needed, "memory limit", memoryLimit);
  const buffers = [
    ...inputs.map((x) => ({ name: inputName(x), bytes: bytesOf(operandOf(x)) })),
    ...plan.slots.map(({ name, bytes }) => ({ name, bytes })),
  ];
  const large = buffers.find(({ bytes }) => bytes > limits.maxBufferSize);
  if (large !== undefined) return refuse(large.name, large.bytes, "largest buffer", limits.maxBufferSize);
  for (const { label, bindings } of kernels) {
    for (const { operand } of bindings) {
      if (bytesOf(operand) <= limits.maxStorageBufferBindingSize) continue;
      const name = `${label} [${operand.shape.join(", ")}]`;
      return refuse(name, bytesOf(operand), "largest binding", limits.maxStorageBufferBindingSize);
    }
  }
  return null;
};
