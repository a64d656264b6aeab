import assert from "node:assert/strict";
import { readSafetensors } from "../../data/formats/safetensors.ts";
import type { Picture } from "../../data/images/decode_image.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import type { ArchitectureName } from "../model/resnet.ts";
import type { StateTensor } from "../run/state_layout.ts";
import { slotMapper } from "./slot_program.ts";

const recording = new URL("../../testdata/knn/knn.safetensors", import.meta.url);

gpuTest(
  "slotMapper() gives the slot maps of a recorded teacher, also in a batch that is not full",
  function* () {
    const { tensors, metadata } = yield* readSafetensors(Deno.readFileSync(recording), "knn.safetensors");
    const config = JSON.parse(metadata.config);
    const values = new Map<string, StateTensor>();
    for (const [name, { shape, data }] of tensors) {
      if (name.startsWith("model/")) {
        values.set(name.slice("model/".length), { shape, data: Float32Array.from(data, Number) });
      }
    }
    const { shape: [N, S], data: pixels } = tensors.get("pixels")!;
    const pictures = Array.from({ length: N }, (_, n): Picture => ({
      width: S,
      height: S,
      rgb: (pixels as Uint8Array).slice(n * S * S * 3, (n + 1) * S * S * 3),
    }));
    const model = {
      arch: config.arch as ArchitectureName,
      width: config.width,
      dimHidden: config.dim_hidden,
      dimOut: config.dim_out,
      numPrototypes: config.num_prototypes,
    };

    const mapPictures = yield* slotMapper(model, values, { resize: S, crop: S, batch: 4 });
    const maps = yield* mapPictures(pictures);

    const segments = tensors.get("expect/segments")!.data as Uint8Array;
    let equal = 0;
    maps.forEach(({ picture, slots }, n) => {
      assert.equal(picture, pictures[n]);
      slots.forEach((slot, i) => equal += Number(slot === segments[n * S * S + i]));
    });
    assert.equal(maps.length, N);
    assert.ok(equal >= 0.999 * segments.length, `${equal} of ${segments.length} pixels agree`);
  },
);
