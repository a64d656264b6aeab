import assert from "node:assert/strict";
import { CPU, GPU, isState, training } from "./_test_training.ts";
import { type DumpedKernel, type DumpedProgram, dumpProgram } from "./dump.ts";
import type { Graph } from "./graph.ts";
import { lower } from "./lower.ts";

const stageOf: Graph["stageOf"] = ({ source }) =>
  source.kind === "op" && source.op.exchange ? "exchange" : "step";

const dumped = (everyVariant = false, memoryLimit?: number) => {
  const graph = training({ world: 2, blocks: 6, precision: "f16", stageOf, memoryLimit });
  const files = dumpProgram(graph, CPU, { isState, everyVariant });
  const program: DumpedProgram = JSON.parse(files["kernels.json"]);
  return { files, program, lowered: lower(graph, CPU, isState) };
};

Deno.test("dumpProgram() gives the same bytes for the same graph, however many tensors there were before", () => {
  assert.deepEqual(dumped(true).files, dumped(true).files);
});

Deno.test("dumpProgram() tells of each dispatch what it runs on what, and for which op", () => {
  const { files, program, lowered } = dumped();
  assert.equal(program.kernels.length, lowered.kernels.length);
  program.kernels.forEach((dispatch, i) => {
    const [kernel, x] = [lowered.kernels[i], lowered.produces[i]];
    assert.equal(files[dispatch.shader], kernel.code);
    assert.deepEqual([dispatch.label, dispatch.op, dispatch.shape], [
      kernel.label,
      x.source.op.name,
      x.shape,
    ]);
    assert.deepEqual([dispatch.stage, dispatch.workgroups], ["step", kernel.workgroups]);
    assert.deepEqual(dispatch.sizes, kernel.sizes && [...kernel.sizes]);
    assert.deepEqual(
      dispatch.operands.map(({ storage }) => storage),
      kernel.bindings.map((b) => b.operand.storage),
    );
    assert.match(kernel.code, new RegExp(`@workgroup_size\\(${dispatch.workgroupSize}\\)`));
  });
  const shaders = Object.keys(files).filter((name) => name.endsWith(".wgsl"));
  assert.deepEqual(new Set(shaders), new Set(program.kernels.map(({ shader }) => shader)));
  const convolution = program.kernels.find(({ op }) => op === "conv2d")!;
  assert.equal(convolution.opFlops, 2 * 4 * 16 * 16 * 8 * 9 * 8);
  assert.match(convolution.work, /^conv2d \[4,16,16,8\] \[3,3,8,8\] \{.*"pad":1/);
  const chosen = new Map(program.choices.map(({ work, chosen }) => [work, chosen]));
  for (const { work, variant } of program.kernels) assert.equal(variant, variant && chosen.get(work));
});

Deno.test("dumpProgram() adds the dispatches of all other variants where these are wanted", () => {
  const { program: { choices, variants, kernels } } = dumped(true);
  const key = ({ work, variant }: Pick<DumpedKernel, "work" | "variant">) => `${work}: ${variant}`;
  const others = choices.flatMap(({ work, variants, chosen }) =>
    variants.filter((variant) => variant !== chosen).map((variant) => key({ work, variant }))
  );
  assert.ok(others.length > 0);
  assert.deepEqual(new Set(variants.map(key)), new Set(others));
  assert.equal(dumped().program.variants.length, 0);
  assert.ok(kernels.every((kernel) => !others.includes(key(kernel))));
});

Deno.test("dumpProgram() writes a line for each tensor, kernel, sync point and allocation", () => {
  const { files, program, lowered } = dumped(false, 1);
  const lines = (name: string, pattern: RegExp) => files[name].match(new RegExp(pattern, "gm")) ?? [];
  assert.equal(lines("graph.txt", /^%\d+ +=/).length, lowered.fused.live.length);
  for (
    const pattern of [
      /^%\d+ += {2}conv2d\(%\d+, %\d+\) \{"stride":1,.*f32 \[4, 16, 16, 8\] +step +stored in f16$/,
      /^%\d+ += {2}relu\(%\d+\) .*fused into %\d+/,
      /^%\d+ += {2}add\(%\d+, %\d+\) .*stored over %\d+/,
      /^%\d+ += {2}allReduceSum\(%\d+\) .*exchanged \(sum, overlappable\)$/,
      /^output loss = %\d+$/,
    ]
  ) assert.ok(lines("graph.txt", pattern).length > 0, `${pattern}`);
  assert.equal(lines("schedule.txt", /^\d+ /).length, program.kernels.length);
  assert.equal(lines("schedule.txt", /^--- sync point \d+: /).length, lowered.syncPoints.length);
  const recomputed = program.kernels.filter(({ recomputedFor }) => recomputedFor !== null).length;
  assert.ok(recomputed > 0);
  assert.equal(lines("schedule.txt", /recomputed for %\d+/).length, recomputed);
  assert.equal(lines("memory.txt", / storage \d+ /).length, lowered.lifetimes.length);
});

Deno.test("dumpProgram() gives what each adapter would get", () => {
  const graph = training();
  const [cpu, gpu] = [CPU, GPU].map((traits) => dumpProgram(graph, traits, { isState }));
  assert.equal(cpu["graph.txt"], gpu["graph.txt"]);
  assert.notEqual(cpu["schedule.txt"], gpu["schedule.txt"]);
});
