/** Verifies the tensors of the published segmentors against recorded lists of them. */
import { Effect, Schema } from "effect";
import { FormatError } from "../../data/files/format_error.ts";
import { sizeOf } from "../../ops/graph/shape.ts";
import { input } from "../../ops/graph/tensor.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { checkpointShapes } from "../run/state_layout.ts";
import { type RecipeName, RECIPES, SEGMENTATION_OPTIONS } from "../transfer/segmentation/config.ts";
import { segmentor } from "../transfer/segmentation/network.ts";
import type { Verification, VerifyRow } from "./report.ts";

const Recording = Schema.Struct({
  backbone_keys: Schema.Array(Schema.String),
  models: Schema.Record(
    Schema.String,
    Schema.Struct({
      parameters: Schema.Int,
      tensors: Schema.Array(Schema.Tuple([Schema.String, Schema.Array(Schema.Int), Schema.String])),
    }),
  ),
});
const decodeRecording = Schema.decodeUnknownEffect(Recording);
type Recording = typeof Recording.Type;

/**
 * Compares names, shapes, types and order of the tensors of each recipe's segmentor with recorded ones, the number of its
 * parameters, and the names of its encoder's tensors. Fails with a `FormatError` that names `file` if `json` is no such
 * recording, or has a model that no recipe makes.
 */
export const verifyModels: (json: unknown, file: string) => Effect.Effect<Verification, FormatError> = Effect
  .fn("verifyModels")(function* (json, file) {
    const refuse = (reason: string) => new FormatError({ subject: file, reason });
    const { models, backbone_keys } = yield* decodeRecording(json).pipe(
      Effect.mapError(({ message }) =>
        refuse(`it is no list of models: ${message.replace(/\s*\n\s*/g, " ")}`)
      ),
    );
    const rows: VerifyRow[] = [];
    for (const [name, recorded] of Object.entries(models)) {
      if (!Object.hasOwn(RECIPES, name)) {
        return yield* refuse(
          `its model "${name}" belongs to no recipe; known are ${Object.keys(RECIPES).join(", ")}`,
        );
      }
      const { tensors, parameters } = yield* modelOf(name as RecipeName, recorded);
      const backbone = tensors.filter(([tensor]) => tensor.startsWith(BACKBONE));
      const keys = backbone.map(([tensor]) => tensor.slice(BACKBONE.length));
      rows.push(
        rowOf(`tensors of ${name}`, tensors.map(inWords), recorded.tensors.map(inWords)),
        rowOf(`parameters of ${name}`, [String(parameters)], [String(recorded.parameters)]),
        rowOf(`encoder's tensors in ${name}`, keys, backbone_keys),
      );
    }
    return { rows, outputs: new Map() };
  });

const BACKBONE = "backbone.";

type Entry = Recording["models"][string]["tensors"][number];
const inWords = ([name, shape, type]: Entry): string => `${name}, [${shape.join(", ")}], ${type}`;

/** The tensors of a recipe's segmentor with as many classes as recorded. */
const modelOf = Effect.fnUntraced(function* (name: RecipeName, recorded: Recording["models"][string]) {
  const config = yield* Effect.orDie(SEGMENTATION_OPTIONS.configure(name));
  const [classes = 1] = recorded.tensors.find(([tensor]) => tensor === "decode_head.conv_seg.bias")?.[1] ??
    [];
  const state = new StateBuilder();
  const images = input("images", [1, config.cropSize, config.cropSize, 3]);
  segmentor(student(state, null), images, { ...config, classes });
  const trained = [...state.declared.values()].filter(({ role }) => role === "trained");
  return {
    parameters: trained.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    tensors: [...checkpointShapes(state)].map(([tensor, shape]): Entry => [
      tensor,
      shape,
      tensor.endsWith("num_batches_tracked") ? "int64" : "float32",
    ]),
  };
});

/** How many entries of two lists differ, and the first that does. */
const rowOf = (group: string, got: readonly string[], want: readonly string[]): VerifyRow => {
  const places = [...Array(Math.max(got.length, want.length)).keys()];
  const different = places.filter((i) => got[i] !== want[i]);
  const [first] = different;
  return {
    ...{ group, tensors: want.length, worst: different.length, tolerance: "equal" },
    holds: different.length === 0,
    note: first === undefined ? undefined : `${got[first] ?? "nothing"} where ${want[first] ?? "nothing"} is`,
  };
};
