/** Whether an adapter can run a lowered graph. */
import { Schema } from "effect";
import { bytesOf } from "../graph/kernel.ts";
import type { AdapterReport } from "../graph/lowering.ts";
import { inputName } from "../graph/tensor.ts";
import type { Graph } from "./graph.ts";
import type { Lowered } from "./lower.ts";

/** The graph needs more than this adapter offers: known before anything runs. */
export class PlanError extends Schema.TaggedError<PlanError>()("PlanError", {
  label: Schema.String,
  tensor: Schema.NullOr(Schema.String), // null: all of it together
  needs: Schema.Number,
  limit: Schema.Number,
  what: Schema.String,
}) {
  override get message() {
    if (this.tensor === null) {
      const [unit, name] = this.needs < 2 ** 30 ? [2 ** 20, "MiB"] : [2 ** 30, "GiB"];
      const amount = (bytes: number) => `${(Math.ceil(100 * bytes / unit) / 100).toFixed(2)} ${name}`;
      return `Cannot run ${this.label} within ${amount(this.limit)} of device memory: ` +
        `it takes ${amount(this.needs)} even where it computes twice what it can. ` +
        "Raise --memory-limit, or lower --batch-size or --image-size";
    }
    const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;
    return `Cannot run ${this.label} on this adapter as ${this.tensor} needs ${
      mib(this.needs)
    }: its ${this.what} is ${mib(this.limit)}. Lower --batch-size or --image-size`;
  }
}

/** What a lowered graph needs beyond its memory limit or these limits of an adapter, or null where it fits. */
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
