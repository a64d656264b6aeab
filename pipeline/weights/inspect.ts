/** The health of the tensors in a file of weights. */
import { Effect } from "effect";
import { widened } from "../../data/formats/file_tensor.ts";
import { nonFiniteValues } from "../run/state.ts";
import type { WeightsFile } from "./weights_file.ts";

/** The health of tensors that belong together: those of a network, or the optimiser's buffers. */
export interface GroupHealth {
  /** Its module: the beginning of the tensors' names. */
  readonly group: string;
  /** Number of tensors, without counters of batches. */
  readonly tensors: number;
  /** Number of values. */
  readonly values: number;
  /** Euclidean norm of all finite values. */
  readonly norm: number;
  /** Largest absolute value among the finite ones. */
  readonly largest: number;
  /** Number of values that are not finite. */
  readonly notFinite: number;
}

/** The health of the prototypes. */
export interface PrototypeHealth {
  /** Number of prototypes. */
  readonly count: number;
  /** Number of prototypes of length 0, which no location is close to. */
  readonly zero: number;
  /** Number of prototypes within a cosine of 0.99 of an earlier one. */
  readonly doubles: number;
}

/** What `inspect` finds in a file. */
export interface Inspection {
  /** In the order of the file. */
  readonly groups: readonly GroupHealth[];
  /** Of the teacher, or of the student where there is none; null in a file without prototypes. */
  readonly prototypes: PrototypeHealth | null;
  /** Which tensors cannot be read or do not match their checksum, and why. */
  readonly damaged: readonly string[];
  /** How many values of which tensors are not finite, in words. */
  readonly nonFinite: readonly string[];
}

/** Reads a whole file, a tensor at a time. Damaged tensors are listed, not fatal. */
export const inspect: (weights: WeightsFile) => Effect.Effect<Inspection> = Effect.fn("inspect")(function* (
  { tensors, content }: WeightsFile,
) {
  const groups = new Map<string, { -readonly [Key in keyof GroupHealth]: GroupHealth[Key] }>();
  const damaged: string[] = [], nonFinite: string[] = [];
  for (const [name, { dtype, values }] of tensors) {
    const read = yield* Effect.result(values);
    if (read._tag === "Failure") {
      damaged.push(read.failure.reason);
      continue;
    }
    const data = widened(dtype, read.success);
    const bad = nonFiniteValues(name, data);
    if (bad !== null) nonFinite.push(bad);
    if (name.endsWith("num_batches_tracked")) continue; // a counter: its size says nothing
    const group = content.kind === "encoder" ? "encoder" : groupOf(name);
    const health = groups.get(group) ?? { group, tensors: 0, values: 0, norm: 0, largest: 0, notFinite: 0 };
    groups.set(group, health);
    health.tensors++;
    health.values += read.success.length;
    for (const value of data) {
      if (!Number.isFinite(value)) health.notFinite++;
      else {
        health.norm += value * value; // its root is taken at the end
        health.largest = Math.max(health.largest, Math.abs(value));
      }
    }
    yield* Effect.yieldNow;
  }

  const embed = tensors.get("grouping_k.slot_embed.weight") ?? tensors.get("grouping_q.slot_embed.weight");
  const rows = embed === undefined ? null : yield* Effect.result(embed.values);
  const [K, D] = embed?.shape ?? [];
  const prototypes = rows?._tag === "Success" && embed?.shape.length === 2 && D > 0 && K <= MOST_COMPARED
    ? prototypeHealth(widened(embed.dtype, rows.success), K, D)
    : null;
  return {
    groups: [...groups.values()].map((health) => ({ ...health, norm: Math.sqrt(health.norm) })),
    prototypes,
    damaged,
    nonFinite,
  };
});

/** The module of a run's tensor: what comes before the first dot of its name. */
const groupOf = (name: string): string => {
  const [module] = name.split(".", 1);
  return module === "scaler" ? "loss scale" : module;
};

const CLOSE = 0.99;
const MOST_COMPARED = 1 << 14; // every pair of them: more than any run has, and still a matter of seconds

const prototypeHealth = (values: Float32Array, K: number, D: number): PrototypeHealth => {
  const unit: Float32Array[] = [];
  let zero = 0, doubles = 0;
  for (let k = 0; k < K; k++) {
    const row = values.subarray(k * D, (k + 1) * D);
    const length = Math.sqrt(dot(row, row));
    if (!(length > 0)) {
      zero++;
      continue;
    }
    const direction = row.map((value) => value / length);
    if (unit.some((other) => dot(other, direction) > CLOSE)) doubles++;
    unit.push(direction);
  }
  return { count: K, zero, doubles };
};

const dot = (a: Float32Array, b: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};
