/** The kernels of sums over rows and columns, whose terms may be fused elementwise ops. */
import type { Kernel } from "../graph/kernel.ts";
import { sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { sumPartials } from "../kernels/partial_sums.ts";
import { type RowSplit, rowVariants } from "../kernels/row_reduction.ts";
import { kernel, vectors } from "../kernels/wgsl.ts";
import { type Block, blocksOf, fusedInputs, iterationSpaceOf, reduced } from "./fused_inputs.ts";
import { bind, bodyOf, byRowsEach, type FusedContext, INDICES, rowsEach, SIZES } from "./fused_kernels.ts";

const NOTHING: ReadonlyMap<Tensor, string> = new Map();

/**
 * Sums over rows: terms of [G, R, C] to [G, terms, C]. Partial sums of some rows each are added up in further passes,
 * in a fixed order, so that the result is the same in every run.
 */
export const columnSumKernels = (root: Tensor, context: FusedContext): readonly Kernel[] => {
  const { inlined, operandOf, scratch, traits, choose } = context;
  const leaves = fusedInputs(root, inlined)!;
  const domain = iterationSpaceOf(root, leaves)!;
  const terms = reduced(root);
  const roots = terms.map((tensor) => ({ tensor, own: false }));
  const counted = root.source.kind === "op" && root.source.inputs.length > terms.length
    ? operandOf(root.source.inputs[terms.length])
    : null;
  const blocks = blocksOf(domain, leaves, 0, traits);
  const output = operandOf(root);
  const width = terms.length * domain.columns;

  const kernelsFor = (most: number): readonly Kernel[] => {
    const each = Math.max(8, rowsEach(domain.rows * domain.groups, domain.columns / 4, traits, most));
    const chunksOf = (rows: number) => Math.ceil(rows / each);
    const perGroup = blocks.filter(({ group }) => (group ?? 0) === 0);
    const chunks = perGroup.reduce((total, { rows }) => total + chunksOf(rows), 0);
    const partial = chunks === 1 ? output : scratch([domain.groups, chunks, width]);

    let chunk = 0;
    const kernels = blocks.map((block) => {
      const body = bodyOf(domain, roots, leaves, inlined, operandOf, NOTHING, block);
      const lanes = domain.columns / body.width;
      const own = chunksOf(block.rows);
      const start = chunk; // among the chunks of all groups
      if (block.group !== null) chunk += own;
      return kernel({
        label: "columnSums",
        reads: { ...bind(body), ...(counted === null ? {} : { count: counted }) },
        writes: { partial: body.width === 4 ? vectors(partial) : partial },
        sizes: { ...body.sizes, lanes, chunks: own, each, rows: block.rows, start, before: block.first },
        threads: lanes * own * (block.group === null ? domain.groups : 1),
        functions: body.functions,
        main: `${INDICES}
  ${counted === null ? "" : "last = min(last, max(count[0], p.before) - p.before);"}
  ${body.hoisted}
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var row = first; row < last; row++) {
    ${body.loopBody}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = (id / p.lanes + p.start) * ${terms.length}u * p.lanes + column;
  ${terms.map((_, t) => `partial[at + ${t}u * p.lanes] = sum${t};`).join("\n  ")}`,
      });
    });
    return chunks === 1
      ? kernels
      : [...kernels, ...sumPartials(partial, output, domain.groups, chunks, width, scratch)];
  };
  const elements = domain.columns * domain.rows * domain.groups;
  return choose(byRowsEach(elements, traits.cpu ? [512, 128] : [512, 64], kernelsFor));
};

/** Sums over the last axis: terms of [..., C] to [..., terms]. */
export const rowSumKernels = (
  root: Tensor,
  { inlined, operandOf, traits, choose }: FusedContext,
): readonly Kernel[] => {
  const leaves = fusedInputs(root, inlined)!;
  const domain = iterationSpaceOf(root, leaves)!;
  const terms = reduced(root);
  const roots = terms.map((tensor) => ({ tensor, own: false }));
  const kernelOf = (block: Block, split: RowSplit) => {
    // An invocation, or a workgroup, stays in its row and loops over columns: what is fixed there is not fixed here.
    const body = bodyOf(domain, roots, leaves, inlined, operandOf, NOTHING, block);
    const work = split(block.rows);
    const total = (t: number) => work.total(body.width === 4 ? `dot(sum${t}, T(1.0))` : `sum${t}`);
    return kernel({
      label: "rowSums",
      reads: bind(body),
      writes: { result: operandOf(root) },
      sizes: {
        ...body.sizes,
        lanes: domain.columns / body.width,
        rows: block.rows,
        before: block.first,
      },
      ...work.launch,
      functions: `${body.functions}\n${work.functions}`,
      main: `
  ${SIZES}
  ${work.origin}
  let block = 0u;
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var column = start; column < p.lanes; column += step) {
    ${body.hoisted}
    ${body.loopBody}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = (p.before + row) * ${terms.length}u;
  ${terms.map((_, t) => `result[at + ${t}u] = ${total(t)};`).join("\n  ")}`,
    });
  };
  const blocks = blocksOf(domain, leaves, sizeOf(root.shape), traits);
  return choose(
    rowVariants(domain.columns, traits, (split) => blocks.map((block) => kernelOf(block, split))),
  );
};
