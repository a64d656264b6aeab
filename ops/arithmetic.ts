/**
 * Elementwise arithmetic with NumPy's broadcasting. Each op is a WGSL expression and a derivative; the compiler fuses
 * chains of them, so there is no need to write a fused version by hand.
 */
import { broadcastShape, sameShape, type Shape, shapeError } from "./graph/shape.ts";
import { constant, defineOp, type Op, type Tensor } from "./graph/tensor.ts";
import { broadcastable } from "./rearrange.ts";

/**
 * Defines an elementwise op: its WGSL expression over the inputs and, unless it is piecewise constant, its derivatives.
 * Inputs are broadcast; the op throws ShapeError where they cannot be.
 */
export const defineElementwise = <A = void>(
  name: string,
  expression: (inputs: readonly string[], attributes: A) => string,
  backward?: (
    context: { inputs: readonly Tensor[]; output: Tensor; gradient: Tensor; attributes: A },
  ) => readonly (Tensor | null)[],
  functions?: string,
): Op<A> => {
  const op = defineOp<A>(name, {
    shape: (inputs) => broadcastShape(name, inputs.map((x) => x.shape)),
    expression,
    backward,
    functions,
  });
  return (inputs, attributes) => op(broadcastable(name, inputs), attributes);
};

/** A tensor, or a number for a constant. */
export type Value = Tensor | number;

/** The tensor, or a constant [] of the number. */
export const tensorOf = (x: Value): Tensor => typeof x === "number" ? constant(x) : x;

/** An op of two inputs, which are broadcast; throws ShapeError where they cannot be. */
export type Binary = (a: Value, b: Value) => Tensor;
const binary = (
  name: string,
  symbol: (a: string, b: string) => string,
  backward: (a: Tensor, b: Tensor, g: Tensor, y: Tensor) => readonly (Tensor | null)[],
): Binary => {
  const op = defineElementwise(
    name,
    ([a, b]) => symbol(a, b),
    ({ inputs: [a, b], gradient, output }) => backward(a, b, gradient, output),
  );
  return (a, b) => op([tensorOf(a), tensorOf(b)]);
};

/** a + b */
export const add: Binary = binary("add", (a, b) => `${a} + ${b}`, (_a, _b, g) => [g, g]);
/** a − b */
export const sub: Binary = binary("sub", (a, b) => `${a} - ${b}`, (_a, _b, g) => [g, neg(g)]);
/** a · b */
export const mul: Binary = binary("mul", (a, b) => `${a} * ${b}`, (a, b, g) => [mul(g, b), mul(g, a)]);
/** a / b */
export const div: Binary = binary(
  "div",
  (a, b) => `${a} / ${b}`,
  (_a, b, g, y) => [div(g, b), neg(mul(g, div(y, b)))],
);
/** max(a, b), NaN where a is; a tie sends the gradient to a. */
export const maximum: Binary = binary(
  "maximum",
  (a, b) => `select(${a}, ${b}, ${a} < ${b})`,
  (a, b, g) => [mul(g, greaterEqual(a, b)), mul(g, sub(1, greaterEqual(a, b)))],
);
/** 1 where a > b, else 0; no gradient. */
export const greater: Binary = (a, b): Tensor => greaterOp([tensorOf(a), tensorOf(b)]);
const greaterOp = defineElementwise("greater", ([a, b]) => `select(T(0.0), T(1.0), ${a} > ${b})`);
/** 1 where a ≥ b, else 0; no gradient. */
export const greaterEqual: Binary = (a, b): Tensor => greaterEqualOp([tensorOf(a), tensorOf(b)]);
const greaterEqualOp = defineElementwise("greaterEqual", ([a, b]) => `select(T(0.0), T(1.0), ${a} >= ${b})`);

/** a where the condition (0 or 1) is not 0, else b; broadcast. The value that is not chosen may be infinite or NaN. */
export const where = (condition: Tensor, a: Value, b: Value): Tensor =>
  whereOp([condition, tensorOf(a), tensorOf(b)]);
const whereOp = defineElementwise(
  "where",
  ([c, a, b]) => `select(${b}, ${a}, ${c} != T(0.0))`,
  ({ inputs: [c], gradient }) => [null, where(c, gradient, 0), where(c, 0, gradient)],
);

/** An op of one input; the result has its shape. */
export type Unary = (x: Tensor) => Tensor;
const unary = (
  name: string,
  expression: (x: string) => string,
  derivative: (x: Tensor, y: Tensor, g: Tensor) => Tensor,
  functions?: string,
): Unary => {
  const op = defineElementwise(
    name,
    ([x]) => expression(x),
    ({ inputs: [x], output, gradient }) => [derivative(x, output, gradient)],
    functions,
  );
  return (x) => op([x]);
};

/** −x */
export const neg: Unary = unary("neg", (x) => `-${x}`, (_x, _y, g) => neg(g));
/** eˣ */
export const exp: Unary = unary("exp", (x) => `exp(${x})`, (_x, y, g) => mul(g, y));
/** Natural logarithm. */
export const log: Unary = unary("log", (x) => `log(${x})`, (x, _y, g) => div(g, x));
/** √x */
export const sqrt: Unary = unary("sqrt", (x) => `sqrt(${x})`, (_x, y, g) => div(g, mul(2, y)));
/** 1/√x, by division: WGSL's inverseSqrt may be off by several units in the last place. */
export const rsqrt: Unary = unary(
  "rsqrt",
  (x) => `T(1.0) / sqrt(${x})`,
  (_x, y, g) => mul(g, mul(-0.5, mul(y, mul(y, y)))),
);

/** max(x, 0), NaN where x is; the derivative at 0 is 0. */
export const relu: Unary = unary(
  "relu",
  (x) => `select(${x}, T(0.0), ${x} <= T(0.0))`,
  (_x, y, g) => mul(g, greater(y, 0)),
);

/** x repeated to a larger shape by NumPy's rule; throws ShapeError where it does not broadcast. */
export const broadcastTo = (x: Tensor, shape: Shape): Tensor =>
  broadcastOp(broadcastable("broadcast", [x], fullShape(x, shape)), { shape });
const fullShape = (x: Tensor, shape: Shape): Shape =>
  sameShape(broadcastShape("broadcast", [x.shape, shape]), shape)
    ? shape
    : shapeError("broadcast", `a shape that broadcasts to [${shape.join(", ")}]`, x.shape);
const broadcastOp = defineOp<{ shape: Shape }>("broadcast", {
  shape: ([x], { shape }) => fullShape(x, shape),
  expression: ([x]) => x,
  backward: ({ gradient }) => [gradient],
});
