import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { Effect } from "effect";
import { inTestFolder, testFolder } from "../data/_test_kit.ts";
import { pythonTest } from "../data/_test_python.ts";
import { assertClose, numbers } from "../ops/_test_kit.ts";
import { input } from "../ops/graph/tensor.ts";
import { normalizeBytes } from "../ops/image/normalize_pixels.ts";
import { resizeBilinear } from "../ops/resize_bilinear.ts";
import { compile } from "../ops/runtime/program.ts";
import { convert, type Format } from "./convert.ts";
import { student } from "./model/slotcon_network.ts";
import { StateBuilder } from "./model/state_builder.ts";
import { upload } from "./run/state.ts";
import { CLASSES, SMALL, smallCheckpoint } from "./transfer/segmentation/_test_segmentor.ts";
import { segmentor } from "./transfer/segmentation/network.ts";
import { PIXEL_STATISTICS } from "./transfer/segmentation/step_graph.ts";
import { segmentorOf, segmentorOptions, segmentorState } from "./transfer/segmentation/weights.ts";
import { channelsFirst, onnxRuntime, runtimeTest } from "./weights/_test_onnx.ts";
import { openWeights } from "./weights/weights_file.ts";

const converted = Effect.fnUntraced(function* (folder: string, from: string, to: Format) {
  const { pieces, notes } = yield* convert(yield* openWeights(from), { to, which: "teacher" });
  const file = join(folder, `${to}.${crypto.randomUUID()}`);
  Deno.writeFileSync(file, Buffer.concat(pieces));
  return { file, notes };
}, Effect.scoped);

const savedIn = (file: string) =>
  Effect.scoped(Effect.flatMap(openWeights(file), (weights) => segmentorOf(weights, null)));

Deno.test(
  "convert() carries a segmentor to mmsegmentation and back with all its values, options that tensors show, and classes",
  inTestFolder((folder) =>
    Effect.runPromise(Effect.gen(function* () {
      for (const config of Object.values(SMALL)) {
        const { file, values } = yield* smallCheckpoint(folder, config);
        const own = yield* savedIn(file);
        assert.deepEqual([own.config, own.classes, own.notes], [config, CLASSES, []]);
        assert.deepEqual([...own.values], [...values]);
        const other = yield* savedIn((yield* converted(folder, file, "mmseg-segmentor")).file);
        assert.deepEqual([...other.values], [...values]);
        assert.deepEqual(other.classes, CLASSES);
        assert.deepEqual(segmentorOptions(other.config, 3), segmentorOptions(config, 3));
        assert.match(other.notes.join(), /recipe (voc|ade20k)/);
      }
    }))
  ),
);

Deno.test(
  "convert() gives the encoder of a segmentor, and says what is none",
  inTestFolder((folder) =>
    Effect.runPromise(
      Effect.gen(function* () {
        const { file, values } = yield* smallCheckpoint(folder, SMALL.d16);
        const mmseg = (yield* converted(folder, file, "mmseg-segmentor")).file;
        const backbones = [];
        for (const from of [file, mmseg]) {
          const backbone = (yield* converted(folder, from, "backbone")).file;
          backbones.push(Deno.readFileSync(backbone));
          const { tensors, content } = yield* openWeights(backbone);
          assert.equal(content.kind, "encoder");
          const wanted = [...values.keys()].filter((name) => name.startsWith("backbone."));
          assert.deepEqual([...tensors.keys()].map((name) => `backbone.${name}`), wanted);
          const { message } = yield* Effect.flip(converted(folder, backbone, "mmseg-segmentor"));
          assert.match(
            message,
            /^Cannot convert ".*" to mmseg-segmentor: it holds no fully convolutional segmentor/,
          );
        }
        assert.deepEqual(backbones[0], backbones[1]);
      }).pipe(Effect.scoped),
    )
  ),
);

pythonTest(
  "convert() writes segmentors that torch.load() reads and a model of these names loads strictly",
  "torch",
  async (python) => {
    await Effect.runPromise(Effect.scoped(Effect.gen(function* () {
      const folder = yield* testFolder;
      const { file, values } = yield* smallCheckpoint(folder, SMALL.d8);
      const script = `
import json, sys, torch
file = torch.load(sys.argv[1])
assert list(file) == ["meta", "state_dict"], list(file)
class Part(torch.nn.Module): pass
model = Part()
for name, tensor in file["state_dict"].items():
    *path, last = name.split(".")
    at = model
    for step in path:
        if not hasattr(at, step): at.add_module(step, Part())
        at = getattr(at, step)
    empty = torch.zeros_like(tensor)
    if last in ("weight", "bias"): at.register_parameter(last, torch.nn.Parameter(empty))
    else: at.register_buffer(last, empty)
model.load_state_dict(file["state_dict"], strict=True)
print(json.dumps([file["meta"], [[n, str(t.dtype), list(t.shape), float(t.double().sum())] for n, t in model.state_dict().items()]]))`;
      const [meta, found] = (yield* Effect.promise(() =>
        Effect.runPromise(converted(folder, file, "mmseg-segmentor")).then(({ file }) =>
          python(script, file)
        )
      )) as [unknown, [string, string, number[], number][]];
      assert.deepEqual(meta, {
        CLASSES: CLASSES.map(({ name }) =>
          name
        ),
        PALETTE: CLASSES.map(({ color }) => color),
      });
      assert.deepEqual(
        found.map(([name, dtype, shape]) => [name, dtype, shape]).sort(),
        [...values].map((
          [name, { shape }],
        ) => [name, name.endsWith("num_batches_tracked") ? "torch.int64" : "torch.float32", shape]).sort(),
      );
      for (const [name, , , sum] of found) {
        const own = values.get(name)!.data.reduce((sum, value) => sum + value, 0);
        assert.ok(Math.abs(sum - own) < 1e-3, name);
      }
    })));
  },
);

for (const [kind, config] of Object.entries(SMALL)) {
  runtimeTest(
    `convert() gives ONNX Runtime the ${kind} that runs here, for pictures of any size and number`,
    function* () {
      const folder = yield* testFolder;
      const { file, values } = yield* smallCheckpoint(folder, config);
      const { file: model, notes } = yield* converted(folder, file, "onnx");
      assert.match(notes.join(), /whole segmentor/);
      const runs: string[] = [];
      const expected: Float32Array[] = [];
      const shapes: string[] = [];
      for (const [i, [N, height, width]] of [[2, 70, 91], [1, 64, 48]].entries()) {
        const pixels = Uint32Array.from(numbers(N * height * width, i + 1), (value) => (value + 1) * 2 ** 23);
        const images = normalizeBytes(
          input("pixels", [N, height, width], "u32"),
          PIXEL_STATISTICS[config.pixelStatistics],
        );
        const { head } = segmentor(student(new StateBuilder(), null), images, segmentorOptions(config, 3));
        const scores = resizeBilinear(head.logits, { height, width, alignCorners: config.alignCorners });
        const state = yield* upload(segmentorState(segmentorOptions(config, 3)), values);
        const program = yield* compile({ label: "the segmentor", outputs: { scores } }, state);
        expected.push(channelsFirst((yield* yield* program.run({ pixels })).scores, scores.shape));
        const rgb = Float32Array.from(
          { length: 3 * pixels.length },
          (_, at) => pixels[Math.floor(at / 3)] >> 8 * (at % 3) & 255,
        );
        const at = `${folder}/${i}`;
        Deno.writeFileSync(`${at}.images`, new Uint8Array(channelsFirst(rgb, [N, height, width, 3]).buffer));
        runs.push(`${at}.images`, [N, 3, height, width].join(), `${at}.scores`);
        shapes.push([N, 3, height, width].join());
      }
      const { success, stdout, stderr } = onnxRuntime(model, ...runs);
      assert.ok(success, new TextDecoder().decode(stderr));
      assert.deepEqual(new TextDecoder().decode(stdout).trim().split("\n"), shapes);
      expected.forEach((want, i) => {
        const got = new Float32Array(Deno.readFileSync(`${folder}/${i}.scores`).buffer);
        const largest = want.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
        assertClose(got, want, { rtol: 1e-4, atol: 1e-4 * largest, what: "scores" });
      });
    },
  );
}
