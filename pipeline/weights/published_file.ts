/**
 * Full checkpoints of the published code as files (docs/method.md, section 10): a dict of `args`, `model`, `optimizer`,
 * `scheduler`, `epoch` and `scaler`, in a PyTorch file. What they mean to a run is in pretrain/published.ts.
 */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { isStoredTensor, type TorchValue } from "../../data/formats/torch/stored_tensor.ts";
import { sameShape } from "../../ops/graph/shape.ts";
import { SCALER } from "../optim/loss_scale.ts";
import { type OptimizerName, optimizerNames, OPTIMIZERS } from "../optim/optimizers.ts";
import { sharedSpelling } from "../run/option_name.ts";
import { withoutWrappers } from "./find_networks.ts";

/** What a published checkpoint says of its run. */
export interface Published {
  /** The published code's command line arguments, by name. */
  readonly args: ReadonlyMap<string, TorchValue>;
  /** Why the run cannot go on from the file, which then has weights alone; null where it can. */
  readonly trouble: string | null;
  /** Epochs done. */
  readonly epoch: number;
  /** Optimiser steps done; null where the scheduler does not say. */
  readonly steps: number | null;
  /** The optimiser; null where the file has no state of a known one. */
  readonly optimizer: OptimizerName | null;
}

/** A published checkpoint that has been read. */
export interface PublishedFile {
  /** Its tensors under the names that they have in this project's checkpoints, the optimiser's among them. */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  /** What it says of its run. */
  readonly published: Published;
}

const isMap = (value: unknown): value is Map<TorchValue, TorchValue> => value instanceof Map;
/** A Python integer, or null where the value is none. */
export const integerIn = (value: unknown): number | null =>
  Number.isSafeInteger(value) ? value as number : null;

/** The entries of the published code's scaler, and the tensors that they are here. */
const SCALER_ENTRIES = { scale: SCALER.scale, _growth_tracker: SCALER.growthTracker } as const;

/** Whether these arguments ask for half precision. */
export const isInHalf = (args: Published["args"]): boolean => args.get("fp16") === true;

/**
 * The value of the argument that corresponds to an option of this project, such as `imageSize`; undefined without one.
 */
export const argument = ({ args }: Published, option: string): TorchValue | undefined =>
  [...args].find(([name]) => sharedSpelling(name) === sharedSpelling(option))?.[1];

/** Whether the contents of a PyTorch file are a full checkpoint of the published code, rather than weights alone. */
export const isPublished = (value: TorchValue): value is Map<TorchValue, TorchValue> =>
  isMap(value) && isMap(value.get("model")) && (value.has("optimizer") || value.has("epoch")) &&
  [/^encoder_[qk]\./, /^grouping_[qk]\./].every((module) =>
    [...(value.get("model") as Map<TorchValue, TorchValue>).keys()].some((name) =>
      module.test(withoutWrappers(String(name)))
    )
  );

/**
 * Reads a published checkpoint from the contents of `file`. Fails with a `FormatError` where its parts do not fit
 * together.
 */
export const readPublished: (
  value: ReadonlyMap<TorchValue, TorchValue>,
  file: string,
) => Effect.Effect<PublishedFile, FormatError> = Effect.fn("readPublished")(function* (value, file) {
  const refuse = (reason: string) => new FormatError({ subject: file, reason });
  const tensors = new Map<string, StoredTensor>();
  for (const [name, tensor] of value.get("model") as ReadonlyMap<TorchValue, TorchValue>) {
    if (typeof name !== "string" || !isStoredTensor(tensor)) {
      return yield* refuse(`its model has an entry ${String(name)} that is no tensor`);
    }
    tensors.set(withoutWrappers(name), tensor);
  }

  const epoch = integerIn(value.get("epoch"));
  const args = value.get("args");
  const scheduler = value.get("scheduler");
  const optimizer = value.get("optimizer");
  const groups = isMap(optimizer) ? optimizer.get("param_groups") : [];
  const state = isMap(optimizer) ? optimizer.get("state") : new Map();
  const trouble = epoch === null || epoch < 0
    ? `its epoch is ${String(value.get("epoch"))}, expected how many are done`
    : !isMap(state) || !Array.isArray(groups) || groups.length > 1 || !groups.every(isMap)
    ? "its optimizer is not of one group of parameters, as the published code's is"
    : null;
  const given = new Map(isMap(args) ? [...args].map(([name, value]) => [String(name), value]) : []);
  if (trouble !== null || !isMap(state) || !Array.isArray(groups) || !groups.every(isMap)) {
    return { tensors, published: { args: given, trouble, epoch: 0, steps: null, optimizer: null } };
  }
  const [group] = groups;

  const parameters = [...tensors.keys()].filter(isParameterName);
  let kind = group === undefined ? null : optimizerOfGroup(group);
  for (const [index, entry] of state) {
    const name = parameters[index as number];
    const found = optimizerNames.find((optimizer) =>
      isMap(entry) && isStoredTensor(entry.get(bufferName(optimizer)))
    );
    if (found === undefined) continue; // no buffer: this parameter has never moved
    const velocity = (entry as ReadonlyMap<TorchValue, TorchValue>).get(bufferName(found)) as StoredTensor;
    if (name === undefined || !sameShape(velocity.shape, tensors.get(name)!.shape)) {
      return yield* refuse(
        `its optimizer has a buffer [${velocity.shape.join(", ")}] for parameter ${String(index)}, ` +
          (name === undefined ? `its model has ${parameters.length}` : `which is ${name}, of another shape`),
      );
    }
    kind = found;
    tensors.set(`optimizer.${name}`, velocity);
  }
  const scaler = value.get("scaler");
  if (isInHalf(given) && isMap(scaler)) {
    for (const [entry, name] of Object.entries(SCALER_ENTRIES)) {
      const number = scaler.get(entry);
      if (typeof number === "number") {
        tensors.set(name, { dtype: "F32", shape: [], values: Effect.succeed(Float32Array.of(number)) });
      }
    }
  }
  return {
    tensors,
    published: {
      args: given,
      trouble,
      epoch: epoch ?? 0,
      steps: isMap(scheduler) ? integerIn(scheduler.get("last_epoch")) : null,
      optimizer: kind,
    },
  };
});

const bufferName = (optimizer: OptimizerName): string => OPTIMIZERS[optimizer].published.buffer;

/** The optimiser whose own options a group of parameters has. */
const optimizerOfGroup = (group: ReadonlyMap<TorchValue, TorchValue>): OptimizerName | null =>
  optimizerNames.find((name) =>
    Object.keys(OPTIMIZERS[name].published.options).every((key) => group.has(key))
  ) ??
    null;

/**
 * Whether a tensor of a published file is a parameter. The optimiser numbers parameters, the teacher's too, but not
 * buffers.
 */
const isParameterName = (name: string) =>
  name !== "center" && !/\.(running_mean|running_var|num_batches_tracked)$/.test(name);
