/** The encoder in a file of weights: which one, of which architecture, and under the names that other tools expect. */
import { Effect } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import type { StoredTensor } from "../../data/formats/file_tensor.ts";
import { sameShape, ShapeError } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { type ArchitectureName, ARCHITECTURES, encoder, type EncoderOptions } from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { publishedConfig, publishedOrder, publishedState } from "../pretrain/published.ts";
import { checkpointShapes } from "../run/state_layout.ts";
import type { WeightsFile } from "./weights_file.ts";

export type Which = "teacher" | "student";

/**
 * An encoder's tensors under torchvision's names, in the order of its layers where the file is of a run. A file with an
 * encoder alone has no other. Fails with a `FormatError` where a run's file lacks this one.
 */
export const encoderOf = Effect.fnUntraced(function* (
  { file, tensors, content }: WeightsFile,
  which: Which,
): Effect.fn.Return<ReadonlyMap<string, StoredTensor>, FormatError> {
  if (content.kind === "encoder") return tensors;
  const prefix = which === "teacher" ? "encoder_k." : "encoder_q.";
  const names = content.kind === "checkpoint"
    ? publishedOrder(publishedState(content.meta.config))
    : [...tensors.keys()];
  const found = new Map<string, StoredTensor>();
  for (const name of names) {
    if (name.startsWith(prefix) && tensors.has(name)) {
      found.set(name.slice(prefix.length), tensors.get(name)!);
    }
  }
  if (found.size > 0) return found;
  const other = which === "teacher" ? "student" : "teacher";
  return yield* new FormatError({ file, reason: `it has no ${which}'s encoder: try --which ${other}` });
});

/** The architecture of an encoder: as its run says, or else as the names and shapes of its tensors do. */
export const architectureOf = Effect.fnUntraced(function* (
  { file, content }: WeightsFile,
  tensors: ReadonlyMap<string, StoredTensor>,
): Effect.fn.Return<EncoderOptions, FormatError> {
  if (content.kind === "checkpoint") return content.meta.config;
  const width = (tensors.get("conv1.weight") ?? tensors.get("conv1.6.weight"))?.shape[0] ?? 0;
  const said = content.kind === "published" ? publishedConfig(content.published, width).arch : null;
  const all = Object.keys(ARCHITECTURES) as ArchitectureName[];
  for (const arch of said === null ? all : [said, ...all]) {
    if (matches(tensors, { arch, width })) return { arch, width };
  }
  const reason = `its encoder is of no known architecture (${all.join(", ")})`;
  return yield* new FormatError({ file, reason });
});

const matches = (tensors: ReadonlyMap<string, StoredTensor>, options: EncoderOptions): boolean => {
  const state = new StateBuilder();
  try {
    encoder(student(state, null), input("images", [1, 64, 64, 3]), options);
  } catch (error) {
    if (error instanceof ShapeError) return false; // an architecture that cannot be as narrow as this
    throw error;
  }
  const shapes = [...checkpointShapes(state)].filter(([name]) => !name.endsWith("num_batches_tracked"));
  const own = [...tensors.keys()].filter((name) => !name.endsWith("num_batches_tracked"));
  return own.length === shapes.length &&
    shapes.every(([name, shape]) => tensors.has(name) && sameShape(tensors.get(name)!.shape, shape));
};

/** A name as detectron2's ResNet has it, from torchvision's (docs/method.md, section 12, point 19). */
export const detectron2Name = (name: string): string =>
  (/^layer\d/.test(name) ? name : `stem.${name}`)
    .replace(/^layer(\d)/, (_, stage) => `res${Number(stage) + 1}`)
    .replace(/\bbn(\d)\./, "conv$1.norm.")
    .replace(/\bdownsample\.0\./, "shortcut.")
    .replace(/\bdownsample\.1\./, "shortcut.norm.");
