/** Shapes and element types of tensors, and how shapes fit together. */
import { Data } from "effect";

/** Sizes of the axes, slowest first; [] is a scalar. */
export type Shape = readonly number[];

/** Element types. */
export type DType = "f32" | "u32";

/** Shapes do not fit together. Raised while a graph is being built: a programming or configuration mistake. */
export class ShapeError extends Data.Error<{
  readonly op: string;
  readonly needs: string;
  readonly found: readonly (readonly number[])[];
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "ShapeError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** Op, need and found shapes as a sentence. */
  override get message(): string {
    return `Cannot build ${this.op} as it needs ${this.needs}: found ${
      this.found.map((shape) => `[${shape.join(", ")}]`).join(", ")
    }`;
  }
}

/** Throws a ShapeError. */
export const shapeError = (op: string, needs: string, ...found: readonly Shape[]): never => {
  throw new ShapeError({ op, needs, found: found.map((shape) => [...shape]) });
};

/**
 * Throws a ShapeError unless each of these attributes of an op, by name, is a whole number from `least` on; `found` are
 * the shapes that it is given with.
 */
export const requireWhole = (
  op: string,
  attributes: Readonly<Record<string, number>>,
  least: number,
  ...found: readonly Shape[]
): void => {
  for (const [name, value] of Object.entries(attributes)) {
    if (Number.isSafeInteger(value) && value >= least) continue;
    shapeError(op, `${name} to be a whole number from ${least} on, not ${value}`, ...found);
  }
};

/** The number of elements. */
export const sizeOf = (shape: Shape): number => shape.reduce((product, size) => product * size, 1);

/** Whether two shapes have the same sizes. */
export const sameShape = (a: Shape, b: Shape): boolean =>
  a.length === b.length && a.every((size, i) => size === b[i]);

/** The shape of the result by NumPy's broadcasting rule. Throws ShapeError where two sizes differ and neither is 1. */
export const broadcastShape = (op: string, shapes: readonly Shape[]): Shape => {
  const rank = Math.max(...shapes.map((shape) => shape.length));
  return Array.from({ length: rank }, (_, axis) => {
    const sizes = shapes.map((shape) => shape[axis - rank + shape.length] ?? 1);
    const size = Math.max(...sizes);
    if (sizes.some((s) => s !== 1 && s !== size)) shapeError(op, "shapes that broadcast", ...shapes);
    return size;
  });
};
