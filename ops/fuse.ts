/**
 * Fusion: chains of elementwise ops become one kernel, and reductions read their inputs through such chains.
 *
 * Every fused kernel runs over a domain of G groups, R rows and C columns; each tensor that it reads is a leaf with a
 * stride along each of the three. What does not change from row to row (normalisation constants, say) is computed
 * once before the loop over rows.
 */
import { type Kernel, kernel, type Operand, vectors } from "./kernel.ts";
import { broadcastLayout, commonSizes, composed, type Layout, stridesAlong } from "./layout.ts";
import {
  type AdapterTraits,
  type OpDefinition,
  sameShape,
  type Shape,
  sizeOf,
  storageOf,
  type Tensor,
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
  // Nothing is broadcast along part of the index: cut it into rows so that each invocation has several elements.
  const rows = [64, 32, 16, 8, 4, 2].find((n) => total % (4 * n) === 0) ?? 1;
  return { columns: total / rows, rows, groups: 1 };
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
  inPlace: Tensor | null,
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
    const own = leaf.tensor === inPlace;
    let buffer = "result";
    if (!own) {
      const same = Object.entries(reads).find(([name, operand]) =>
        operand === operandOf(leaf.tensor) && vectorReads.has(name) === asVector
      );
      buffer = same?.[0] ?? `in${Object.keys(reads).length}`;
      reads[buffer] = operandOf(leaf.tensor);
      if (asVector) vectorReads.add(buffer);
    }
    // Strides are sizes of the kernel, so that other shapes share its code; only which of them are 0 is written in.
    const n = known.size;
    const step = (stride: number, index: string, label: string) => {
      if (stride === 0) return null;
      sizes[`s${n}${label}`] = asVector && label !== "c" ? stride / 4 : stride;
      return stride === 1 ? index : `${index} * p.s${n}${label}`;
    };
    const terms = [
      c === 0 ? null : asVector ? "column" : c === 1 ? "column" : step(c, "column", "c"),
      step(r, "row", "r"),
      step(g, "block", "g"),
    ].filter((term) => term !== null);
    if (leaf.offset !== 0) {
      sizes[`o${n}`] = asVector ? leaf.offset / 4 : leaf.offset;
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
    functions: `alias T = ${width === 4 ? "vec4<f32>" : "f32"};\n${[...functions].join("\n")}`,
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

const INDICES = /* wgsl */ `
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

interface FusedContext {
  readonly inlined: (x: Tensor) => boolean;
  readonly operandOf: (x: Tensor) => Operand;
  readonly scratch: (shape: Shape) => Operand;
  readonly traits: AdapterTraits;
}

/** The kernel of an elementwise tensor; with `inPlace` it overwrites that input, which lies where the output goes. */
export const elementwiseKernel = (root: Tensor, context: FusedContext, inPlace: Tensor | null): Kernel => {
  const leaves = leavesOf(root, context.inlined)!;
  const domain = domainOf(root, leaves)!;
  const body = bodyOf(
    domain,
    [{ tensor: root, own: true }],
    leaves,
    context.inlined,
    context.operandOf,
    inPlace,
  );
  const lanes = domain.columns / body.width;
  const each = rowsEach(domain.rows * domain.groups, lanes, context.traits, context.traits.software ? 32 : 8);
  const chunks = Math.ceil(domain.rows / each);
  const output = context.operandOf(root);
  return kernel({
    label: root.source.kind === "op" ? root.source.op.name : "elementwise",
    reads: bind(body),
    writes: { result: body.width === 4 ? vectors(output) : output },
    sizes: { ...body.sizes, lanes, chunks, each, rows: domain.rows },
    threads: lanes * chunks * domain.groups,
    functions: body.functions,
    main: `${INDICES}
  ${body.before}
  for (var row = first; row < last; row++) {
    ${body.perRow}
    result[(block * p.rows + row) * p.lanes + column] = ${body.values[0]};
  }`,
  });
};

/**
 * Sums over rows: terms of [G, R, C] to [G, terms, C]. Partial sums of some rows each are added up in further passes,
 * in a fixed order, so that the result is the same in every run.
 */
export const columnSumKernels = (root: Tensor, context: FusedContext): readonly Kernel[] => {
  const leaves = leavesOf(root, context.inlined)!;
  const domain = domainOf(root, leaves)!;
  const terms = reduced(root);
  const body = bodyOf(
    domain,
    terms.map((tensor) => ({ tensor, own: false })),
    leaves,
    context.inlined,
    context.operandOf,
    null,
  );
  const lanes = domain.columns / body.width;
  const each = Math.max(8, rowsEach(domain.rows * domain.groups, lanes, context.traits, 256));
  const chunks = Math.ceil(domain.rows / each);
  const output = context.operandOf(root);
  const partial = chunks === 1
    ? output
    : context.scratch([domain.groups, chunks, terms.length * domain.columns]);
  const counted = root.source.kind === "op" && root.source.inputs.length > terms.length
    ? context.operandOf(root.source.inputs[terms.length])
    : null;
  const first = kernel({
    label: "columnSums",
    reads: { ...bind(body), ...(counted === null ? {} : { count: counted }) },
    writes: { partial: body.width === 4 ? vectors(partial) : partial },
    sizes: { ...body.sizes, lanes, chunks, each, rows: domain.rows },
    threads: lanes * chunks * domain.groups,
    functions: body.functions,
    main: `${INDICES}
  ${counted === null ? "" : "last = min(last, count[0]);"}
  ${body.before}
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var row = first; row < last; row++) {
    ${body.perRow}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  let at = id / p.lanes * ${terms.length}u * p.lanes + column;
  ${terms.map((_, t) => `partial[at + ${t}u * p.lanes] = sum${t};`).join("\n  ")}`,
  });
  const kernels = [first];
  let from = partial;
  for (let parts = chunks; parts > 1;) {
    const next = Math.ceil(parts / 64);
    const to = next === 1 ? output : context.scratch([domain.groups, next, terms.length * domain.columns]);
    kernels.push(addParts(from, to, domain.groups, parts, terms.length * domain.columns));
    from = to;
    parts = next;
  }
  return kernels;
};

/** [G, parts, C] to [G, ceil(parts / 64), C]. */
export const addParts = (
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
export const rowSumKernel = (root: Tensor, context: FusedContext): Kernel => {
  const leaves = leavesOf(root, context.inlined)!;
  const { columns, rows } = domainOf(root, leaves)!;
  const terms = reduced(root);
  // The roles of rows and columns are exchanged: an invocation stays in its row and loops over columns.
  const body = bodyOf(
    { columns, rows, groups: 1 },
    terms.map((tensor) => ({ tensor, own: false })),
    leaves,
    context.inlined,
    context.operandOf,
    null,
  );
  const total = body.width === 4 ? (t: number) => `dot(sum${t}, T(1.0))` : (t: number) => `sum${t}`;
  return kernel({
    label: "rowSums",
    reads: bind(body),
    writes: { result: context.operandOf(root) },
    sizes: { ...body.sizes, lanes: columns / body.width },
    threads: rows,
    functions: body.functions,
    main: `
  let row = id;
  let block = 0u;
  ${terms.map((_, t) => `var sum${t} = T(0.0);`).join("\n  ")}
  for (var column = 0u; column < p.lanes; column++) {
    ${body.before}
    ${body.perRow}
    ${body.values.map((value, t) => `sum${t} += ${value};`).join("\n    ")}
  }
  ${terms.map((_, t) => `result[row * ${terms.length}u + ${t}u] = ${total(t)};`).join("\n  ")}`,
  });
};
