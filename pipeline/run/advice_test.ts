import assert from "node:assert/strict";
import { PlanError } from "../../ops/compiler/limits.ts";
import { GpuError, type GpuFailure } from "../../ops/runtime/gpu.ts";
import { explained } from "./advice.ts";

const KINDS: readonly GpuFailure[] = ["adapter", "package", "precision", "memory", "kernel", "run", "lost"];

Deno.test("explained() names options where an error of ops has words", () => {
  const large = {
    label: "the step",
    tensor: "pixels",
    needs: 2 ** 23,
    limit: 2 ** 22,
    what: "largest buffer",
  };
  const errors = [
    ...KINDS.map((kind) => new GpuError({ kind, subject: "compute", reason: "it is night" })),
    new PlanError(large),
    new PlanError({ ...large, tensor: null }),
  ];
  for (const error of errors) {
    assert.doesNotMatch(error.message, /--|slotcon/);
    assert.ok(explained(error).startsWith(`Cannot ${error.subject}: ${error.reason}. `), explained(error));
    const named = error._tag === "PlanError" || error.kind !== "adapter";
    assert.equal(/ --[a-z]|`slotcon/.test(explained(error)), named, explained(error));
  }
  assert.equal(
    explained(errors[errors.length - 2]),
    "Cannot run the step on this adapter as pixels needs 8.0 MiB: its largest buffer is 4.0 MiB. " +
      "Lower --batch-size or the size of the pictures",
  );
});
