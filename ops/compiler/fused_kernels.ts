/** The kernels of fused elementwise ops. */
import { bytesOf, type Kernel, type Operand } from "../graph/kernel.ts";
import { composed, type Layout } from "../graph/layout.ts";
import type { AdapterTraits, Variants } from "../graph/lowering.ts";
import { type Shape, sizeOf } from "../graph/shape.ts";
import type { Tensor } from "../graph/tensor.ts";
import { kernel, vectors } from "../kernels/wgsl.ts";
import {
  accessOf,
  type Block,
  blocksOf,
  type FusedInput,
  fusedInputsOfAll,
  identity,
  isWithin,
  type IterationSpace,
  iterationSpaceOf,
  strides,
  windowOf,
} from "./fused_inputs.ts";
import { isScalar } from "./graph.ts";

/** Describes the work of a fused kernel, as far as its time depends on it: what it makes, of what sizes of tensors. */
export const fusedWork = (
  roots: readonly Tensor[],
  leaves: readonly FusedInput[],
  inHalf: (x: Tensor) => boolean,
): string => {
  const sizes = [...new Set(leaves.map(({ tensor }) => tensor))].map((x) =>
    `${sizeOf(x.shape)}${inHalf(x) ? "h" : ""}`
  );
  const [{ shape }] = roots;
  return `${labelOf(roots)} [${shape.join()}] of ${sizes.sort().join(", ")}`;
};

interface FusedBody {
  /** Elements an invocation handles at once: 4 with vec4, else 1. */
  readonly width: 1 | 4;
  readonly reads: Record<string, Operand>;
  readonly vectorReads: ReadonlySet<string>;
  readonly sizes: Record<string, number>;
  readonly functions: string;
  /** Statements that hold for all rows. */
  readonly hoisted: string;
  /** Statements of one row; `values` are the results in it. */
  readonly loopBody: string;
  readonly values: readonly string[];
}

/** Generates the statements that compute `roots` over the domain. */
export const bodyOf = (
  domain: IterationSpace,
  roots: readonly { tensor: Tensor; own: boolean }[],
  leaves: readonly FusedInput[],
  inlined: (x: Tensor) => boolean,
  operandOf: (x: Tensor) => Operand,
  inPlace: ReadonlyMap<Tensor, string>, // the buffers that these lie in are those that results go to
  block: Block,
): FusedBody => {
  const vectorizable = domain.columns % 4 === 0 && leaves.every((leaf) => {
    const [c, r, g] = strides(leaf.layout, domain);
    return c === 0 || (c === 1 && r % 4 === 0 && g % 4 === 0 && leaf.offset % 4 === 0);
  });
  const width = vectorizable ? 4 : 1;
  const reads: Record<string, Operand> = {};
  const vectorReads = new Set<string>();
  const sizes: Record<string, number> = {};
  const functions = new Set<string>();
  const before: string[] = [];
  const perRow: string[] = [];
  const known = new Map<string, { name: string; fixed: boolean }>();

  const remember = (key: string, fixed: boolean, code: string) => {
    const name = `v${known.size}`;
    (fixed ? before : perRow).push(`let ${name} = ${code};`);
    known.set(key, { name, fixed });
    return { name, fixed };
  };

  const load = (leaf: FusedInput) => {
    const [c, r, g] = strides(leaf.layout, domain);
    const key = `${leaf.tensor.id}@${leaf.offset}:${c},${r},${g}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const asVector = width === 4 && c === 1;
    let { operand, skip } = { operand: operandOf(leaf.tensor), skip: leaf.offset };
    if (block.group !== null) {
      const start = leaf.offset + block.group * g + block.first * r;
      ({ operand, skip } = windowOf(operand, start, (block.rows - 1) * r + (domain.columns - 1) * c + 1));
    }
    let buffer = inPlace.get(leaf.tensor);
    if (buffer === undefined) {
      const same = Object.entries(reads).find(([name, other]) =>
        other.storage === operand.storage && other.offset === operand.offset &&
        vectorReads.has(name) === asVector
      );
      buffer = same?.[0] ?? `in${Object.keys(reads).length}`;
      // Two leaves may share a binding: it then has to reach as far as either of them.
      reads[buffer] = same !== undefined && bytesOf(same[1]) > bytesOf(operand) ? same[1] : operand;
      if (asVector) vectorReads.add(buffer);
    }
    // Strides are sizes of the kernel, so that other shapes share its code; only which of them are 0 is written in.
    const n = known.size;
    const terms: string[] = [];
    const step = (stride: number, index: string, label: string) => {
      if (stride === 0) return;
      if (stride !== 1) sizes[`s${n}${label}`] = asVector ? stride / 4 : stride;
      terms.push(stride === 1 ? index : `${index} * p.s${n}${label}`);
    };
    if (asVector) terms.push("column");
    else step(c, "column", "c");
    step(r, "row", "r");
    if (block.group === null) step(g, "block", "g");
    if (skip !== 0) {
      sizes[`o${n}`] = asVector ? skip / 4 : skip;
      terms.push(`p.o${n}`);
    }
    const element = `${buffer}[${terms.length === 0 ? "0" : terms.join(" + ")}]`;
    return remember(key, r === 0, width === 4 && !asVector ? `T(${element})` : element);
  };

  // A uniform word and not a literal: layers that differ in it share the kernel's code.
  const scalar = (x: Tensor) => {
    const key = `${x.id}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const { data } = x.source as { data: Float32Array };
    sizes[`k${known.size}`] = new Uint32Array(Float32Array.from(data).buffer)[0];
    return remember(key, true, `T(bitcast<f32>(p.k${known.size}))`);
  };

  const evaluate = (x: Tensor, layout: Layout, offset: number): { name: string; fixed: boolean } => {
    if (x.source.kind === "reshape") return evaluate(x.source.of, layout, offset);
    if (!inlined(x)) return isScalar(x) ? scalar(x) : load({ tensor: x, layout, offset });
    return expression(x, layout);
  };

  const expression = (x: Tensor, layout: Layout): { name: string; fixed: boolean } => {
    if (x.source.kind !== "op") throw new Error("an elementwise tensor comes from an op");
    const { op, inputs, attributes } = x.source;
    const key = `${x.id}:${layout.map((axis) => `${axis.size}x${axis.stride}`).join()}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    if (op.functions) functions.add(op.functions);
    const arguments_ = inputs.map((input) => {
      const access = accessOf(op, input, x.shape, attributes);
      return evaluate(input, composed(layout, access.layout)!, access.offset);
    });
    const code = op.expression!(arguments_.map((a) => a.name), attributes);
    return remember(key, arguments_.every((a) => a.fixed), code);
  };

  const values = roots.map(({ tensor, own }) => {
    const whole = identity(sizeOf(tensor.shape));
    return (own ? expression(tensor, whole) : evaluate(tensor, whole, 0)).name;
  });
  return {
    width,
    reads,
    vectorReads,
    sizes,
    functions: `${
      width === 4 ? "alias T = vec4<f32>; alias U = vec4<u32>;" : "alias T = f32; alias U = u32;"
    }\n${[...functions].join("\n")}`,
    hoisted: before.join("\n  "),
    loopBody: perRow.join("\n    "),
    values,
  };
};

/** How many rows one invocation takes: many where invocations are costly, few where lanes are plenty. */
export const rowsEach = (rows: number, lanes: number, traits: AdapterTraits, most: number): number => {
  const invocations = traits.cpu ? 32 : 16384;
  return Math.max(1, Math.min(most, Math.ceil((rows * lanes) / invocations), rows));
};

/** Kernels for several numbers of rows that an invocation takes at most, where there is enough to do to tell. */
export const byRowsEach = (
  elements: number,
  mosts: readonly number[], // the best guess first
  kernels: (most: number) => readonly Kernel[],
): Variants =>
  Object.fromEntries(
    mosts.slice(0, elements < 2 ** 18 ? 1 : Infinity).map((
      most,
    ) => [`${most} rows each`, () => kernels(most)]),
  );

/** Sizes are read once, not in every row: software adapters check each access to a uniform. */
export const SIZES = "let p = p;";

export const INDICES = /* wgsl */ `
  ${SIZES}
  let column = id % p.lanes;
  let block = id / p.lanes / p.chunks;
  let first = id / p.lanes % p.chunks * p.each;
  var last = min(first + p.each, p.rows);`;

export const bind = (body: FusedBody) =>
  Object.fromEntries(
    Object.entries(body.reads).map((
      [name, operand],
    ) => [name, body.vectorReads.has(name) ? vectors(operand) : operand]),
  );

export interface FusedContext {
  readonly inlined: (x: Tensor) => boolean;
  readonly operandOf: (x: Tensor) => Operand;
  readonly scratch: (shape: Shape) => Operand;
  readonly traits: AdapterTraits;
  readonly choose: (variants: Variants) => readonly Kernel[];
}

/**
 * The kernels that make elementwise tensors of one size; a tensor that `replaced` gives for one of them lies where that
 * one goes, and is overwritten.
 */
export const elementwiseKernels = (
  roots: readonly Tensor[],
  context: FusedContext,
  replaced: (root: Tensor) => Tensor | null,
): readonly Kernel[] => {
  const { inlined, operandOf, traits, choose } = context;
  const leaves = fusedInputsOfAll(roots, inlined)!;
  const domain = iterationSpaceOf(roots[0], leaves)!;
  const names = roots.map((_, i) => `result${i}`);
  const inPlace = new Map(roots.flatMap((root, i) => {
    const old = replaced(root);
    return old === null ? [] : [[old, names[i]]];
  }));
  const own = roots.map((tensor) => ({ tensor, own: true }));
  const size = sizeOf(roots[0].shape);
  const kernelOf = (block: Block, most: number) => {
    const body = bodyOf(domain, own, leaves, isWithin(roots, inlined), operandOf, inPlace, block);
    const groups = block.group === null ? domain.groups : 1;
    const lanes = domain.columns / body.width;
    const each = rowsEach(block.rows * groups, lanes, traits, most);
    const chunks = Math.ceil(block.rows / each);
    const start = ((block.group ?? 0) * domain.rows + block.first) * domain.columns;
    const windows = roots.map((root) =>
      block.group === null
        ? { operand: operandOf(root), skip: 0 }
        : windowOf(operandOf(root), start, block.rows * domain.columns)
    );
    return kernel({
      label: labelOf(roots),
      reads: bind(body),
      writes: Object.fromEntries(
        windows.map(({ operand }, i) => [names[i], body.width === 4 ? vectors(operand) : operand]),
      ),
      sizes: { ...body.sizes, lanes, chunks, each, rows: block.rows, skip: windows[0].skip / body.width },
      threads: lanes * chunks * groups,
      functions: body.functions,
      main: `${INDICES}
  ${body.hoisted}
  for (var row = first; row < last; row++) {
    ${body.loopBody}
    let at = (block * p.rows + row) * p.lanes + column + p.skip;
    ${names.map((name, i) => `${name}[at] = ${body.values[i]};`).join("\n    ")}
  }`,
    });
  };
  const blocks = blocksOf(domain, leaves, size, traits);
  return choose(
    byRowsEach(
      size,
      traits.cpu ? [128, 32] : [8, 2, 32],
      (most) => blocks.map((block) => kernelOf(block, most)),
    ),
  );
};

/** The names of what is made, each once. */
const labelOf = (roots: readonly Tensor[]): string =>
  [...new Set(roots.map(({ source }) => source.kind === "op" ? source.op.name : "elementwise"))].join(" ");
