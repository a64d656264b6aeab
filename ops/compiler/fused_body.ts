/** WGSL statements that compute elementwise tensors from the inputs of a fused kernel. */
import { bytesOf, type Operand } from "../graph/kernel.ts";
import { composed, type Layout } from "../graph/layout.ts";
import { sizeOf } from "../graph/shape.ts";
import { constantData, isOp, type OpTensor, type Tensor } from "../graph/tensor.ts";
import { type Vectors, vectors } from "../kernels/wgsl.ts";
import {
  accessOf,
  type FusedInput,
  identity,
  type IterationSpace,
  type RowSlice,
  stridesIn,
  type Window,
  windowOf,
} from "./fused_inputs.ts";
import { isScalar } from "./graph.ts";

/** What a fused kernel reads, and which part of an iteration space it runs over. */
export interface FusedSlice {
  readonly inputs: readonly FusedInput[];
  readonly space: IterationSpace;
  readonly slice: RowSlice;
}

/** What a body computes. */
export interface BodySpec extends FusedSlice {
  /** The tensors whose values the body computes, all of the size of the iteration space. */
  readonly roots: readonly Tensor[];
  /** Whether the body computes a tensor instead of loading it. */
  readonly isComputed: (x: Tensor) => boolean;
  readonly operandOf: (x: Tensor) => Operand;
  /** Inputs that a result overwrites: they are read through the binding of this name. */
  readonly overwritten: ReadonlyMap<Tensor, string>;
}

/** The parts of a kernel that depend on its expressions. */
export interface FusedBody {
  /** Elements that an invocation handles at once, as a vector: 4 where all inputs allow it. */
  readonly width: 1 | 4;
  /** The inputs to bind, by name. */
  readonly reads: Readonly<Record<string, Operand | Vectors>>;
  readonly sizes: Readonly<Record<string, number>>;
  readonly functions: string;
  /** Statements whose values are the same in all rows. */
  readonly hoisted: string;
  /** Statements of one row. */
  readonly loopBody: string;
  /** The name of each root's value within the row. */
  readonly values: readonly string[];
}

/**
 * Generates the statements that compute `spec.roots` for one column and row (`column`, `row`, `block` for the group).
 */
export const bodyOf = (spec: BodySpec): FusedBody => {
  const body: Draft = {
    spec,
    width: isVectorizable(spec) ? 4 : 1,
    reads: {},
    vectorReads: new Set(),
    sizes: {},
    functions: new Set(),
    hoisted: [],
    loopBody: [],
    emitted: new Map(),
  };
  const values = spec.roots.map((root) => evaluate(body, root, identity(sizeOf(root.shape)), 0).name);
  const aliases = body.width === 4
    ? "alias T = vec4<f32>; alias U = vec4<u32>;"
    : "alias T = f32; alias U = u32;";
  return {
    width: body.width,
    reads: Object.fromEntries(
      Object.entries(body.reads).map((
        [name, operand],
      ) => [name, body.vectorReads.has(name) ? vectors(operand) : operand]),
    ),
    sizes: body.sizes,
    functions: `${aliases}\n${[...body.functions].join("\n")}`,
    hoisted: body.hoisted.join("\n  "),
    loopBody: body.loopBody.join("\n    "),
    values,
  };
};

/** A body while it is generated. */
interface Draft {
  readonly spec: BodySpec;
  readonly width: 1 | 4;
  readonly reads: Record<string, Operand>;
  readonly vectorReads: Set<string>;
  readonly sizes: Record<string, number>;
  readonly functions: Set<string>;
  readonly hoisted: string[];
  readonly loopBody: string[];
  /** Values that have a name already, for common subexpressions. */
  readonly emitted: Map<string, Value>;
}

interface Value {
  readonly name: string;
  readonly isHoisted: boolean;
}

/** Whether vectors of four neighbouring columns are aligned in all inputs. */
const isVectorizable = ({ space, inputs }: BodySpec): boolean =>
  space.columns % 4 === 0 && inputs.every(({ layout, offset }) => {
    const [column, row, group] = stridesIn(layout, space);
    return column === 0 || (column === 1 && row % 4 === 0 && group % 4 === 0 && offset % 4 === 0);
  });

/** Names the value of an expression, unless it has a name already. `code` gets the number of the new name. */
const emit = (
  body: Draft,
  key: string,
  code: (number: number) => { readonly isHoisted: boolean; readonly code: string },
): Value => {
  const known = body.emitted.get(key);
  if (known !== undefined) return known;
  const statement = code(body.emitted.size);
  const value = { name: `v${body.emitted.size}`, isHoisted: statement.isHoisted };
  (value.isHoisted ? body.hoisted : body.loopBody).push(`let ${value.name} = ${statement.code};`);
  body.emitted.set(key, value);
  return value;
};

/** The value of `x` at the element that `layout` and `offset` give: computed, a uniform, or loaded. */
const evaluate = (body: Draft, x: Tensor, layout: Layout, offset: number): Value => {
  if (x.source.kind === "reshape") return evaluate(body, x.source.of, layout, offset);
  if (isOp(x) && body.spec.isComputed(x)) return expression(body, x, layout);
  return isScalar(x) ? scalar(body, x) : load(body, { tensor: x, layout, offset });
};

const expression = (body: Draft, x: OpTensor, layout: Layout): Value => {
  const { op, inputs, attributes } = x.source;
  const key = `${x.id}:${layout.map(({ size, stride }) => `${size}x${stride}`).join()}`;
  const known = body.emitted.get(key);
  if (known !== undefined) return known;
  if (op.functions) body.functions.add(op.functions);
  const operands = inputs.map((input) => {
    const access = accessOf(x, input);
    return evaluate(body, input, composed(layout, access.layout)!, access.offset);
  });
  return emit(body, key, () => ({
    isHoisted: operands.every(({ isHoisted }) => isHoisted),
    code: op.expression!(operands.map(({ name }) => name), attributes),
  }));
};

/** A uniform and not a literal, so that layers that differ in it share the kernel's code. */
const scalar = (body: Draft, x: Tensor): Value =>
  emit(body, `${x.id}`, (n) => {
    body.sizes[`k${n}`] = new Uint32Array(Float32Array.from(constantData(x)).buffer)[0];
    return { isHoisted: true, code: `T(bitcast<f32>(p.k${n}))` };
  });

const load = (body: Draft, input: FusedInput): Value => {
  const [column, row, group] = stridesIn(input.layout, body.spec.space);
  return emit(body, `${input.tensor.id}@${input.offset}:${column},${row},${group}`, (n) => {
    const asVector = body.width === 4 && column === 1;
    const { operand, skip } = windowInSlice(body.spec, input);
    const buffer = body.spec.overwritten.get(input.tensor) ?? bound(body, operand, asVector);

    // Strides are sizes of the kernel, so that other shapes share its code; only which of them are 0 is part of the
    // code.
    const terms: string[] = [];
    const sized = (name: string, elements: number) => {
      body.sizes[name] = asVector ? elements / 4 : elements;
      return `p.${name}`;
    };
    const addStride = (index: string, stride: number, name: string) => {
      if (stride !== 0) terms.push(stride === 1 ? index : `${index} * ${sized(name, stride)}`);
    };
    if (asVector) terms.push("column");
    else addStride("column", column, `s${n}c`);
    addStride("row", row, `s${n}r`);
    if (body.spec.slice.group === null) addStride("block", group, `s${n}g`);
    if (skip !== 0) terms.push(sized(`o${n}`, skip));
    const element = `${buffer}[${terms.length === 0 ? "0" : terms.join(" + ")}]`;
    return { isHoisted: row === 0, code: body.width === 4 && !asVector ? `T(${element})` : element };
  });
};

/** What of an input the kernel binds, and the elements of it before the first one of the slice. */
const windowInSlice = (
  { operandOf, slice, space }: BodySpec,
  { tensor, layout, offset }: FusedInput,
): Window => {
  const operand = operandOf(tensor);
  if (slice.group === null) return { operand, skip: offset };
  const [column, row, group] = stridesIn(layout, space);
  const start = offset + slice.group * group + slice.first * row;
  return windowOf(operand, start, (slice.rows - 1) * row + (space.columns - 1) * column + 1);
};

/** Binds an operand and names the binding. Inputs of the same memory share one, which reaches as far as any of them. */
const bound = (body: Draft, operand: Operand, asVector: boolean): string => {
  const { reads, vectorReads } = body;
  const shared = Object.keys(reads).find((name) =>
    reads[name].storage === operand.storage && reads[name].offset === operand.offset &&
    vectorReads.has(name) === asVector
  );
  const name = shared ?? `in${Object.keys(reads).length}`;
  if (shared === undefined || bytesOf(reads[name]) <= bytesOf(operand)) reads[name] = operand;
  if (asVector) vectorReads.add(name);
  return name;
};
