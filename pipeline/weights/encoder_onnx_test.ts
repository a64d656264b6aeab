import assert from "node:assert/strict";
import { Effect } from "effect";
import { testFolder } from "../../data/_test_kit.ts";
import { livelyValues } from "../_test_kit.ts";
import type { FileTensor } from "../../data/formats/file_tensor.ts";
import { decodeImage } from "../../data/images/decode_image.ts";
import { assertClose } from "../../ops/_test_kit.ts";
import { gelu } from "../../ops/gelu.ts";
import { input, type Tensor } from "../../ops/graph/tensor.ts";
import { normalizePixels } from "../../ops/image/normalize_pixels.ts";
import { matmul } from "../../ops/matmul.ts";
import { compile } from "../../ops/runtime/program.ts";
import {
  type ArchitectureName,
  ARCHITECTURES,
  encoder,
  type EncoderOptions,
  IMAGENET,
} from "../model/resnet.ts";
import { student } from "../model/slotcon_network.ts";
import { StateBuilder } from "../model/state_builder.ts";
import { upload } from "../run/state.ts";
import { checkpointShapes, type StateTensor } from "../run/state_layout.ts";
import { channelsFirst, onnxRuntime, runtimeTest } from "./_test_onnx.ts";
import { encoderOnnx, onnxNodes } from "./encoder_onnx.ts";

/** Weights and statistics that are all different and under which no map dies out. */
const weightsOf = (options: EncoderOptions): Map<string, FileTensor & StateTensor> => {
  const state = new StateBuilder();
  encoder(student(state, null), input("images", [1, 64, 64, 3]), options);
  const values = livelyValues(checkpointShapes(state));
  return new Map([...values].map(([name, tensor]) => [name, { dtype: "F32", ...tensor }]));
};

const FOLDER = new URL("../../testdata/augment/pictures/", import.meta.url);

/** The upper left corners of photographs, a word a pixel. */
const corners = Effect.fnUntraced(function* (files: readonly string[], height: number, width: number) {
  const words: number[] = [];
  for (const file of files) {
    const picture = yield* decodeImage(Deno.readFileSync(new URL(file, FOLDER)), file);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [r, g, b] = picture.rgb.subarray(3 * (y * picture.width + x));
        words.push(r | g << 8 | b << 16);
      }
    }
  }
  return Uint32Array.from(words);
});

const BATCHES = [
  { files: ["coffee_420.jpg", "astronaut_444.jpg"], height: 96, width: 131 },
  { files: ["chelsea_progressive.jpg"], height: 139, width: 64 },
];

const CASES: readonly EncoderOptions[] = [
  { arch: "resnet18", width: 16 },
  { arch: "resnet50", width: 8 },
  { arch: "resnet50", width: 8, outputStride: 16 },
  { arch: "resnet50", width: 8, outputStride: 8 },
  { arch: "resnet50_d", width: 8 },
  { arch: "resnet50_w2x", width: 8 },
  { arch: "resnext101_32x8d", width: 8 },
];

for (const options of CASES) {
  const stride = options.outputStride ? ` at output stride ${options.outputStride}` : "";
  runtimeTest(
    `encoderOnnx() gives ONNX Runtime the ${options.arch}${stride} that runs here, for photographs of any size and number`,
    function* () {
      const weights = weightsOf(options);
      const folder = yield* testFolder;
      const model = `${folder}/encoder.onnx`;
      for (const piece of yield* encoderOnnx(weights, options)) {
        Deno.writeFileSync(model, piece, { append: true });
      }

      const runs: string[] = [];
      const expected: Float32Array[] = [];
      const shapes: string[] = [];
      for (const [i, { files, height, width }] of BATCHES.entries()) {
        const state = new StateBuilder();
        const images = normalizePixels(input("pictures", [files.length, height, width], "u32"), IMAGENET);
        const features = encoder(student(state, null), images, options);
        const outputs = { images, features };
        const program = yield* compile({ label: "the encoder", outputs }, yield* upload(state, weights));
        const pictures = yield* corners(files, height, width);
        const values = yield* yield* program.run({ pictures });

        const at = `${folder}/${i}`;
        Deno.writeFileSync(`${at}.images`, new Uint8Array(channelsFirst(values.images, images.shape).buffer));
        runs.push(`${at}.images`, [files.length, 3, height, width].join(), `${at}.features`);
        expected.push(channelsFirst(values.features, features.shape));
        const [N, h, w, C] = features.shape;
        shapes.push([N, C, h, w].join());
      }

      const { success, stdout, stderr } = onnxRuntime(model, ...runs);
      assert.ok(success, new TextDecoder().decode(stderr));
      assert.deepEqual(new TextDecoder().decode(stdout).trim().split("\n"), shapes);
      expected.forEach((want, i) => {
        const got = new Float32Array(Deno.readFileSync(`${folder}/${i}.features`).buffer);
        const largest = want.reduce((a, b) => Math.max(a, b), 0);
        assert.ok(got.every((value, j) => Math.abs(value - want[j]) <= 1e-4 * largest));
        assertClose(got, want, { rtol: 1e-4, what: "features" });
      });
    },
  );
}

const graphOf = (options: EncoderOptions): [Tensor, Tensor] => {
  const images = input("images", [1, 64, 64, 3]);
  return [images, encoder(student(new StateBuilder(), null), images, options)];
};

Deno.test(
  "onnxNodes() puts every node of every architecture behind those that it reads, under a name of its own",
  () => {
    for (const arch of Object.keys(ARCHITECTURES) as ArchitectureName[]) {
      const nodes = Effect.runSync(onnxNodes(...graphOf({ arch, width: 8 })));
      const known = new Set(["images"]);
      for (const { inputs, output } of nodes) {
        for (const name of inputs) {
          const parameter = /\.(weight|bias|running_mean|running_var)$/.test(name);
          assert.ok(parameter || known.has(name), `${arch}: ${name} is not there yet`);
        }
        assert.ok(!known.has(output), `${arch}: ${output} is there twice`);
        known.add(output);
      }
      assert.equal(new Set(nodes.map(({ name }) => name)).size, nodes.length);
      assert.equal(nodes.at(-1)!.output, "features");
    }
  },
);

Deno.test("onnxNodes() names nodes by their weights, and the op that has no operator", () => {
  const [images, features] = graphOf({ arch: "resnet18", width: 8 });
  const names = Effect.runSync(onnxNodes(images, features)).map(({ name }) => name);
  assert.deepEqual(names.slice(0, 5), ["conv1", "bn1", "bn1.relu", "bn1.relu.maxpool", "layer1.0.conv1"]);
  const refused = (x: Tensor) => Effect.runSync(Effect.flip(onnxNodes(images, x))).message;
  assert.match(refused(gelu(features)), /^Cannot export the encoder as ONNX: .* "gelu"$/);
  assert.match(refused(matmul(images, gelu(input("w", [3, 3])))), /"matmul"$/);
});

Deno.test("encoderOnnx() gives the same bytes for the same weights, in whatever order they come", () => {
  const options = { arch: "resnet18_d", width: 8 } as const;
  const weights = [...weightsOf(options)];
  const pieces = Effect.runSync(encoderOnnx(new Map(weights), options));
  assert.deepEqual(Effect.runSync(encoderOnnx(new Map(weights.toReversed()), options)), pieces);
});

Deno.test("encoderOnnx() names the weight that does not fit", () => {
  const options = { arch: "resnet18", width: 8 } as const;
  const weights = weightsOf(options);
  const refused = (name: string, tensor?: FileTensor) => {
    const others = new Map<string, FileTensor>([...weights].filter(([other]) => other !== name));
    if (tensor !== undefined) others.set(name, tensor);
    return Effect.runSync(Effect.flip(encoderOnnx(others, options))).message;
  };
  assert.match(refused("bn1.running_var"), /bn1\.running_var must be F32 \[8\] but is missing$/);
  const half: FileTensor = { dtype: "F16", shape: [8], data: new Float16Array(8) };
  assert.match(refused("bn1.weight", half), /must be F32 \[8\] but is F16 \[8\]$/);
  const wide: FileTensor = { dtype: "F32", shape: [9], data: new Float32Array(9) };
  assert.match(refused("bn1.weight", wide), /must be F32 \[8\] but is F32 \[9\]$/);
});
