/** Finds the fastest variant of the kernels for a piece of work by trying them on the device. */
import { Effect } from "effect";
import { type Choice, TunedChoices } from "./choices.ts";
import { compile } from "./compile.ts";
import { gatherRows } from "./gather_rows.ts";
import { constant, defineOp, reshape, sizeOf, storageOf, type Tensor } from "./tensor.ts";

export interface Tuned extends Choice {
  /** Milliseconds that each variant takes; null where the adapter could not run it. */
  readonly milliseconds: Readonly<Record<string, number | null>>;
}

const TIMINGS = 5;

/** How long the timings of one variant go on, in milliseconds; a first one is always made. */
const PATIENCE = 500;

/**
 * Runs every variant of a choice on numbers of the right shapes and takes the fastest by the device's clock, or the
 * host's where the device has none. Where no variant runs the choice stays as it was.
 */
export const tune = Effect.fnUntraced(function* (choice: Choice) {
  const milliseconds: Record<string, number | null> = {};
  for (const variant of choice.variants) {
    milliseconds[variant] = yield* timeOf(choice).pipe(
      Effect.provideService(TunedChoices, () => (work) => work === choice.work ? variant : undefined),
      Effect.scoped,
      Effect.catchTags({ GpuError: () => Effect.succeed(null), PlanError: () => Effect.succeed(null) }),
    );
  }
  const time = (variant: string) => milliseconds[variant] ?? Infinity;
  const [chosen] = choice.variants.toSorted((a, b) => time(a) < time(b) ? -1 : time(a) > time(b) ? 1 : 0);
  return { ...choice, chosen, tuned: time(chosen) < Infinity, milliseconds } satisfies Tuned as Tuned;
});

/** The median time of a run of the work, of a few. */
const timeOf = Effect.fnUntraced(function* ({ makes, inHalf }: Choice) {
  if (makes.source.kind !== "op") return yield* Effect.die(new Error("only ops have variants"));
  const { op, inputs, attributes } = makes.source;
  const operands = inputs.map((x, i) => {
    const numbers = standIn(x, inputs[0]);
    return inHalf[i] ? inHalfPrecision([numbers]) : numbers;
  });
  const result = defineOp(op.name, op)(operands, attributes);
  const program = yield* compile({
    label: op.name,
    outputs: { row: firstRow(result) },
    precision: inHalf.some((half) => half) ? "f16" : "f32",
  });
  const run = yield* program.profiler;
  yield* Effect.flatten(run({})); // drivers compile in the first one
  const times: number[] = [];
  for (const begin = performance.now(); times.length < TIMINGS;) {
    const { kernels, host } = yield* Effect.flatten(run({}));
    const own = kernels?.filter(({ makes }) => makes === storageOf(result)) ?? host;
    times.push(own[own.length - 1].end - own[0].begin);
    if (performance.now() - begin > PATIENCE) break;
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
});

/** Numbers of a tensor's shape: such that nothing is rare about them, and counts of rows as large as `of` has rows. */
const standIn = ({ shape, dtype }: Tensor, of: Tensor): Tensor => {
  const size = sizeOf(shape);
  return dtype === "u32"
    ? constant(new Uint32Array(size).fill(of.shape[of.shape.length - 2]), shape)
    : constant(Float32Array.from({ length: size }, (_, i) => (i * 0.618034) % 1 - 0.5), shape);
};

/** The same values, stored in half precision by a program of that precision. */
const inHalfPrecision = defineOp("inHalfPrecision", {
  shape: ([x]) => x.shape,
  precision: "half",
  expression: ([x]) => x,
});

/** One row of a result, so that all of it is computed and little is read. */
const firstRow = (x: Tensor): Tensor => {
  const columns = x.shape[x.shape.length - 1];
  const rows = sizeOf(x.shape) / columns;
  const places = { indices: constant(Uint32Array.of(0)), positions: constant(new Uint32Array(rows)) };
  return gatherRows(reshape(x, [rows, columns]), places);
};
