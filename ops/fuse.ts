/**
 * Fusion: chains of elementwise ops become one kernel, and reductions read their inputs through such chains.
 *
 * Every fused kernel runs over a domain of G groups, R rows and C columns; each tensor that it reads is a leaf with a
 * stride along each of the three. What does not change from row to row (normalisation constants, say) is computed
 * once before the loop over rows.
 */
import { type RowSplit, rowVariants } from "./_row.ts";
import { vectorized } from "./_vectorized.ts";
import { alignmentOf, bytesOf, type Kernel, kernel, type Operand, vectors } from "./kernel.ts";
import { broadcastLayout, commonSizes, composed, type Layout, stridesAlong } from "./layout.ts";
import {
  type AdapterTraits,
  type OpDefinition,
  sameShape,
  type Shape,
  sizeOf,
  storageOf,
  type Tensor,
  type Variants,
} from "./tensor.ts";

/** An op whose input is read at other places than its output's own: a slice or a transposition. */
export interface Access {
  readonly layout: Layout;
  readonly offset: number;
}

/** A tensor in memory, as one expression walks through it. */
interface Leaf {
  readonly tensor: Tensor;
  readonly layout: Layout;
  readonly offset: number;
}

export const isElementwise = (x: Tensor): boolean =>
  x.source.kind === "op" && x.source.op.expression !== undefined;

/** Describes the work of a fused kernel, as far as its time depends on it: what it makes, of what sizes of tensors. */
export const fusedWork = (
  roots: readonly Tensor[],
  leaves: readonly Leaf[],
  inHalf: (x: Tensor) => boolean,
): string => {
  const sizes = [...new Set(leaves.map(({ tensor }) => tensor))].map((x) =>
    `${sizeOf(x.shape)}${inHalf(x) ? "h" : ""}`
  );
  const [{ shape }] = roots;
  return `${labelOf(roots)} [${shape.join()}] of ${sizes.sort().join(", ")}`;
};

export const isReduction = (x: Tensor): boolean =>
  x.source.kind === "op" && x.source.op.reduction !== undefined;

/** A number known when the graph is built: it needs no memory. */
export const isScalar = (x: Tensor): boolean =>
  x.source.kind === "constant" && x.source.data.length === 1 && x.dtype === "f32";

const identity = (size: number): Layout => size === 1 ? [] : [{ size, stride: 1 }];

/** The tensor whose memory holds `x`, with the layout that walks it in the order of `x`; null if it is none. */
const walk = (
  x: Tensor,
  layout: Layout,
  inlined: (x: Tensor) => boolean,
  visit: (leaf: Leaf) => void,
): boolean => {
  if (x.source.kind === "view") return walk(x.source.of, layout, inlined, visit);
  if (!inlined(x)) {
    if (!isScalar(x)) visit({ tensor: x, layout, offset: 0 });
    return true;
  }
  return walkInputs(x, layout, inlined, visit);
};

const walkInputs = (
  x: Tensor,
  layout: Layout,
  inlined: (x: Tensor) => boolean,
  visit: (leaf: Leaf) => void,
): boolean => {
  if (x.source.kind !== "op") return false;
  const { op, inputs, attributes } = x.source;
  return inputs.every((input) => {
    const access = accessOf(op, input, x.shape, attributes);
    // An offset is one of memory: what lies behind it cannot be computed on the way.
    if (access.offset !== 0 && inlined(storageOf(input))) return false;
    const inner = composed(layout, access.layout);
    return inner !== null &&
      walk(input, inner, inlined, (leaf) => visit({ ...leaf, offset: leaf.offset + access.offset }));
  });
};

const accessOf = (op: OpDefinition<unknown>, input: Tensor, shape: Shape, attributes: unknown): Access =>
  op.access?.(input.shape, attributes) ?? { layout: broadcastLayout(input.shape, shape), offset: 0 };

/** Everything the fused kernel of `root` reads if the tensors that `inlined` names are computed in it; null if it cannot be. */
export const leavesOf = (root: Tensor, inlined: (x: Tensor) => boolean): readonly Leaf[] | null => {
  const leaves: Leaf[] = [];
  const visit = (leaf: Leaf) => leaves.push(leaf);
  if (root.source.kind !== "op") return null;
  const whole = identity(sizeOf(root.shape));
  const complete = isReduction(root)
    ? reduced(root).every((term) => walk(term, identity(sizeOf(term.shape)), inlined, visit))
    : walkInputs(root, whole, inlined, visit);
  return complete && domainOf(root, leaves) !== null ? leaves : null;
};

/**
 * The same for several elementwise tensors of one size that one kernel computes: what they read of each other they need
 * not load. Null if it cannot be one kernel.
 */
export const leavesOfAll = (
  roots: readonly Tensor[],
  inlined: (x: Tensor) => boolean,
): readonly Leaf[] | null => {
  const within = isWithin(roots, inlined);
  const leaves: Leaf[] = [];
  for (const root of roots) {
    const own = leavesOf(root, within);
    if (own === null) return null;
    leaves.push(...own);
  }
  return domainOf(roots[0], leaves) === null ? null : leaves;
};

const isWithin = (roots: readonly Tensor[], inlined: (x: Tensor) => boolean) => (x: Tensor): boolean =>
  roots.includes(x) || inlined(x);

/** The inputs that a reduction sums; a row count may follow them. */
const reduced = (root: Tensor): readonly Tensor[] => {
  if (root.source.kind !== "op") return [];
  const { inputs } = root.source;
  return inputs.filter((x) => x.dtype === "f32" && sameShape(x.shape, inputs[0].shape));
};

interface Domain {
  readonly columns: number;
  readonly rows: number;
  readonly groups: number;
}

/** Some rows of one group, or with `group` null all of the domain. */
interface Block {
  readonly group: number | null;
  readonly first: number;
  readonly rows: number;
}

/** Cuts a domain into blocks in which no tensor takes more than one binding may hold. */
const blocksOf = (
  domain: Domain,
  leaves: readonly Leaf[],
  output: number,
  { maxBinding }: AdapterTraits,
): Block[] => {
  const most = maxBinding / 4;
  const sizes = leaves.map((leaf) => sizeOf(leaf.tensor.shape));
  const { columns, rows, groups } = domain;
  if (Math.max(output, ...sizes) <= most) return [{ group: null, first: 0, rows }];
  const widest = Math.max(columns, ...leaves.map((leaf) => strides(leaf.layout, domain)[1]));
  const each = Math.max(1, Math.floor((most - 64) / widest));
  const blocks: Block[] = [];
  for (let group = 0; group < groups; group++) {
    for (let first = 0; first < rows; first += each) {
      blocks.push({ group, first, rows: Math.min(each, rows - first) });
    }
  }
  return blocks;
};

/** The `length` elements from `start` on. Bindings begin at round places: `skip` elements lie before. */
const windowOf = (operand: Operand, start: number, length: number): { operand: Operand; skip: number } => {
  const skip = start % alignmentOf(operand);
  return { operand: { ...operand, offset: operand.offset + start - skip, shape: [length + skip] }, skip };
};

const domainOf = (root: Tensor, leaves: readonly Leaf[]): Domain | null => {
  const layouts = leaves.map((leaf) => leaf.layout);
  if (isReduction(root)) {
    const [term] = reduced(root);
    const columns = term.shape[term.shape.length - 1];
    const total = sizeOf(term.shape);
    const byColumns = root.source.kind === "op" && root.source.op.reduction === "columns";
    const rows = byColumns ? term.shape[1] : total / columns;
    const cuts = [columns, columns * rows];
    const sizes = commonSizes(layouts, total, cuts);
    const wanted = commonSizes([], total, cuts);
    return sizes !== null && wanted !== null && sizes.length === wanted.length
      ? { columns, rows, groups: total / columns / rows }
      : null;
  }
  const total = sizeOf(root.shape);
  const sizes = commonSizes(layouts, total);
  if (sizes === null || sizes.length > 3) return null;
  if (sizes.length > 1) return { columns: sizes[0], rows: sizes[1], groups: sizes[2] ?? 1 };
  // Nothing is broadcast along part of the index: cut it into short rows, so that neighbours read neighbouring words
  // and an invocation goes on close to where it was.
  const columns = [32, 16, 8, 4].find((n) => total % n === 0) ?? 1;
  return { columns, rows: total / columns, groups: 1 };
};

/** Strides of a layout along columns, rows and groups. */
const strides = (layout: Layout, { columns, rows, groups }: Domain): [number, number, number] => {
  // Axes of size 1 do not appear in a layout; leave them out and give them stride 0.
  const sizes = [columns, rows, groups];
  const kept = stridesAlong(layout, sizes.filter((size) => size > 1));
  return sizes.map((size) => (size > 1 ? kept.shift()! : 0)) as [number, number, number];
};

interface Body {
  /** Elements an invocation handles at once: 4 with vec4, else 1. */
  readonly width: 1 | 4;
  readonly reads: Record<string, Operand>;
  readonly vectorReads: ReadonlySet<string>;
  readonly sizes: Record<string, number>;
  readonly functions: string;
  /** Statements that hold for all rows. */
  readonly before: string;
  /** Statements of one row; `values` are the results in it. */
  readonly perRow: string;
  readonly values: readonly string[];
}

/** Generates the statements that compute `roots` over the domain. */
const bodyOf = (
  domain: Domain,
  roots: readonly { tensor: Tensor; own: boolean }[],
  leaves: readonly Leaf[],
  inlined: (x: Tensor) => boolean,
  operandOf: (x: Tensor) => Operand,
  inPlace: ReadonlyMap<Tensor, string>, // the buffers that these lie in are those that results go to
  block: Block,
): Body => {
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

  const load = (leaf: Leaf) => {
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
    if (x.source.kind === "view") return evaluate(x.source.of, layout, offset);
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
    before: before.join("\n  "),
    perRow: perRow.join("\n    "),
    values,
  };
};

/** How many rows one invocation takes: many where invocations are costly, few where lanes are plenty. */
const rowsEach = (rows: number, lanes: number, traits: AdapterTraits, most: number): number => {
  const invocations = traits.software ? 32 : 16384;
  return Math.max(1, Math.min(most, Math.ceil((rows * lanes) / invocations), rows));
};

/** Kernels for several numbers of rows that an invocation takes at most, where there is enough to do to tell. */
const byRowsEach = (
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
const SIZES = "let p = p;";

const INDICES = /* wgsl */ `
  ${SIZES}
  let column = id % p.lanes;
  let block = id / p.lanes / p.chunks;
  let first = id / p.lanes % p.chunks * p.each;
  var last = min(first + p.each, p.rows);`;

const bind = (body: Body) =>
  Object.fromEntries(
    Object.entries(body.reads).map((
      [name, operand],
    ) => [name, body.vectorReads.has(name) ? vectors(operand) : operand]),
  );

const NOTHING: ReadonlyMap<Tensor, string> = new Map();

interface FusedContext {
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
  const leaves = leavesOfAll(roots, inlined)!;
  const domain = domainOf(roots[0], leaves)!;
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
  ${body.before}
  for (var row = first; row < last; row++) {
    ${body.perRow}
    let at = (block * p.rows + row) * p.lanes + column + p.skip;
    ${names.map((name, i) => `${name}[at] = ${body.values[i]};`).join("\n    ")}
  }`,
    });
  };
  const blocks = blocksOf(domain, leaves, size, traits);
  return choose(
    byRowsEach(
      size,
      traits.software ? [128, 32] : [8, 2, 32],
      (most) => blocks.map((block) => kernelOf(block, most)),
    ),
  );
};

/** The names of what is made, each once. */
const labelOf = (roots: readonly Tensor[]): string =>
  [...new Set(roots.map(({ source }) => source.kind === "op" ? source.op.name : "elementwise"))].join(" ");

/**
 * Sums over rows: terms of [G, R, C] to [G, terms, C]. Partial sums of some rows each are added up in further passes,
 * in a fixed order, so that the result is the same in every run.
 */
export const columnSumKernels = (root: Tensor, context: FusedContext): readonly Kernel[] => {
  const { inlined, operandOf, scratch, traits, choose } = context;
  const leaves = leavesOf(root, inlined)!;
  const domain = domainOf(root, leaves)!;
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
  ${body.before}
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var row = first; row < last; row++) {
    ${body.perRow}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = (id / p.lanes + p.start) * ${terms.length}u * p.lanes + column;
  ${terms.map((_, t) => `partial[at + ${t}u * p.lanes] = sum${t};`).join("\n  ")}`,
      });
    });
    return chunks === 1
      ? kernels
      : [...kernels, ...addUp(partial, output, domain.groups, chunks, width, scratch)];
  };
  const elements = domain.columns * domain.rows * domain.groups;
  return choose(byRowsEach(elements, traits.software ? [512, 128] : [512, 64], kernelsFor));
};

/** The sums that `sumsAroundFirst` makes of x [G, R, C], from what a product left of so many rows each. */
export const sumsOfMoments = (
  x: Operand,
  { parts, each }: { readonly parts: Operand; readonly each: number },
  output: Operand,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const [G, R, C] = x.shape;
  const ofGroup = R / each, chunks = Math.ceil(ofGroup / 64);
  const partial = chunks === 1 ? output : scratch([G, chunks, 2 * C]);
  const { bind, width, alias } = vectorized(C);
  const sums = kernel({
    label: "sumsOfMoments",
    reads: { x: bind(x), parts: bind(parts) },
    writes: { partial: bind(partial) },
    sizes: { R, lanes: C / width, chunks, ofGroup, each },
    threads: G * chunks * C / width,
    functions: alias,
    main: /* wgsl */ `
  let column = id % p.lanes;
  let chunk = id / p.lanes % p.chunks;
  let block = id / p.lanes / p.chunks;
  let first = x[block * p.R * p.lanes + column];
  var sum = T(0.0);
  var squares = T(0.0);
  for (var i = chunk * 64u; i < min(chunk * 64u + 64u, p.ofGroup); i++) {
    let at = (block * p.ofGroup + i) * 2u * p.lanes + column;
    let apart = parts[at] - first;
    sum += apart;
    squares += parts[at + p.lanes] + f32(p.each) * apart * apart;
  }
  let to = id / p.lanes * 2u * p.lanes + column;
  partial[to] = f32(p.each) * sum;
  partial[to + p.lanes] = squares;`,
  });
  return chunks === 1 ? [sums] : [sums, ...addUp(partial, output, G, chunks, 2 * C, scratch)];
};

/** Adds [groups, parts, columns] up to [groups, columns], in passes of 64 parts. */
export const addUp = (
  partial: Operand,
  output: Operand,
  groups: number,
  parts: number,
  columns: number,
  scratch: (shape: Shape) => Operand,
): readonly Kernel[] => {
  const kernels: Kernel[] = [];
  for (let current = partial, left = parts; left > 1;) {
    const next = Math.ceil(left / 64);
    const sum = next === 1 ? output : scratch([groups, next, columns]);
    kernels.push(addParts(current, sum, groups, left, columns));
    current = sum;
    left = next;
  }
  return kernels;
};

/** [G, parts, C] to [G, ceil(parts / 64), C]. */
const addParts = (
  from: Operand,
  to: Operand,
  groups: number,
  parts: number,
  columns: number,
): Kernel => {
  const next = Math.ceil(parts / 64);
  return kernel({
    label: "addParts",
    reads: { part: from },
    writes: { sum: to },
    sizes: { parts, next, columns },
    threads: groups * next * columns,
    main: /* wgsl */ `
  let column = id % p.columns;
  let chunk = id / p.columns;
  let block = chunk / p.next;
  let first = chunk % p.next * 64u;
  let last = min(first + 64u, p.parts);
  var total = 0.0;
  for (var i = first; i < last; i++) { total += part[(block * p.parts + i) * p.columns + column]; }
  sum[id] = total;`,
  });
};

/** Sums over the last axis: terms of [..., C] to [..., terms]. */
export const rowSumKernels = (
  root: Tensor,
  { inlined, operandOf, traits, choose }: FusedContext,
): readonly Kernel[] => {
  const leaves = leavesOf(root, inlined)!;
  const domain = domainOf(root, leaves)!;
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
    ${body.before}
    ${body.perRow}
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
