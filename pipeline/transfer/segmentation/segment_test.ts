import assert from "node:assert/strict";
import { Effect } from "effect";
import { readSafetensors } from "../../../data/formats/safetensors.ts";
import { widened } from "../../../data/formats/file_tensor.ts";
import { gpuTest } from "../../../ops/_test_kit.ts";
import { input } from "../../../ops/graph/tensor.ts";
import { student } from "../../model/slotcon_network.ts";
import { StateBuilder } from "../../model/state_builder.ts";
import { upload } from "../../run/state.ts";
import type { StateTensor } from "../../run/state_layout.ts";
import { segmentor } from "./network.ts";
import { segmenter, type SegmenterOptions, windowsOf } from "./segment.ts";

/** A recorded inference: the network, the resized picture, and what is expected. */
const recording = Effect.fnUntraced(function* (kind: "d16" | "d8") {
  const name = `inference_${kind}.safetensors`;
  const bytes = Deno.readFileSync(new URL(`../../../testdata/segmentation/${name}`, import.meta.url));
  const { tensors, metadata } = yield* readSafetensors(bytes, name);
  const config = JSON.parse(metadata.config);
  const values = new Map<string, StateTensor>();
  for (const [name, { dtype, shape, data }] of tensors) {
    if (name.startsWith("init/")) {
      values.set(name.slice("init/".length), { shape, data: widened(dtype, data) });
    }
  }
  const options: Omit<SegmenterOptions, "testMode"> = {
    ...{ arch: "resnet50", width: config.width, outputStride: kind === "d16" ? 16 : 8 },
    ...{ classes: config.classes, headChannels: config.head, headDilation: kind === "d16" ? 6 : 1 },
    concatInput: kind === "d8",
    ...{ auxiliaryWeight: kind === "d8" ? 0.4 : 0, auxiliaryChannels: config.aux ?? 1 },
    alignCorners: config.align_corners,
    pixelStatistics: config.mean[0] < 1 ? "unscaled" : "imagenet",
    ...{ window: config.crop_size, stride: config.stride },
  };
  const rgb = tensors.get("picture")!.data as Uint8Array;
  const pixels = Uint32Array.from(
    { length: rgb.length / 3 },
    (_, i) => rgb[3 * i] | rgb[3 * i + 1] << 8 | rgb[3 * i + 2] << 16,
  );
  const image = { pixels, size: config.size, original: config.original_size };
  return { tensors, values, options, image };
});

const onDevice = Effect.fnUntraced(function* (
  options: SegmenterOptions,
  values: ReadonlyMap<string, StateTensor>,
) {
  const state = new StateBuilder();
  segmentor(student(state, null), input("images", [1, 64, 64, 3]), options);
  return yield* segmenter(options, yield* upload(state, values));
});

gpuTest("segmenter() finds the recorded classes, in whole pictures and in windows", function* () {
  for (const kind of ["d16", "d8"] as const) {
    const { tensors, values, options, image } = yield* recording(kind);
    for (const [testMode, name] of [["whole", "whole"], ["windows", "slide"]] as const) {
      const segment = yield* onDevice({ ...options, testMode }, values);
      const found = yield* segment(image);
      const want = tensors.get(`expect/${name}/labels`)!.data as Uint8Array;
      assert.equal(found.length, want.length);
      const equal = found.filter((label, i) => label === want[i]).length;
      assert.ok(equal >= 0.998 * want.length, `${kind}, ${name}: ${equal} of ${want.length} pixels agree`);
    }
  }
});

Deno.test("windowsOf() moves the last windows back to the border, as recorded", () => {
  for (const kind of ["d16", "d8"] as const) {
    const { tensors, options, image } = Effect.runSync(recording(kind));
    const { windows, window: [height, width] } = windowsOf(image.size, { ...options, testMode: "windows" });
    const want = Array.from(tensors.get("expect/slide/windows")!.data as BigInt64Array, Number);
    assert.deepEqual(windows.flatMap(([top, left]) => [top, top + height, left, left + width]), want);
  }
  const square = { testMode: "windows", window: [769, 769], stride: [513, 513] } as const;
  const { windows } = windowsOf([1025, 2049], square);
  assert.deepEqual(
    windows.map(([top, left]) => [top, left]),
    [0, 256].flatMap((top) => [0, 513, 1026, 1280].map((left) => [top, left])),
  );
  assert.deepEqual(windowsOf([100, 900], square), { windows: [[0, 0], [0, 131]], window: [100, 769] });
});

gpuTest("segmenter() takes pictures of any size, one after the other, and of one pixel", function* () {
  const { values, options } = yield* recording("d8");
  const segment = yield* onDevice({ ...options, testMode: "windows" }, values);
  const found = new Map<string, string>();
  for (let round = 0; round < 2; round++) {
    for (
      const size of [[1, 1], [40, 48], [41, 97], [90, 20], [17, 33], [63, 64], [90, 21], [20, 90]] as const
    ) {
      const pixels = Uint32Array.from({ length: size[0] * size[1] }, (_, i) => (i * 2654435761) & 0xffffff);
      const labels = yield* segment({ pixels, size, original: [size[0] * 2, size[1]] });
      assert.equal(labels.length, 2 * size[0] * size[1]);
      // A program that was dropped and compiled anew gives the same.
      const before = found.get(size.join());
      if (before !== undefined) assert.equal(labels.join(), before);
      found.set(size.join(), labels.join());
    }
  }
});
