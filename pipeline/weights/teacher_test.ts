import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { Effect } from "effect";
import { inTestFolder } from "../../data/_test_kit.ts";
import { readSafetensors, writeSafetensors } from "../../data/formats/safetensors.ts";
import { convert, type Format } from "../convert.ts";
import { teacherOf } from "./teacher.ts";
import { openWeights } from "./weights_file.ts";

const published = new URL("../../testdata/checkpoint/tiny_lars.pth", import.meta.url).pathname;
const recording = new URL("../../testdata/knn/knn.safetensors", import.meta.url);

const teacherIn = (file: string) =>
  openWeights(file).pipe(Effect.flatMap(teacherOf), Effect.scoped, Effect.runPromise);

const converted = (to: Format) =>
  openWeights(published).pipe(
    Effect.flatMap((weights) => convert(weights, { to, which: "teacher" })),
    Effect.map(({ pieces }) => Buffer.concat(pieces)),
    Effect.scoped,
    Effect.runPromise,
  );

Deno.test(
  "teacherOf() finds the same teacher in a published checkpoint and in ours",
  inTestFolder(async (folder) => {
    await Deno.writeFile(`${folder}/ours`, await converted("slotcon"));
    const theirs = await teacherIn(published), ours = await teacherIn(`${folder}/ours`);
    assert.deepEqual(ours.values, theirs.values);
    const sizes = { arch: "resnet50", width: 2, dimHidden: 12, dimOut: 6, numPrototypes: 5, imageSize: 64 };
    assert.deepEqual({ ...theirs.model, outputStride: null }, { ...sizes, outputStride: null });
    assert.deepEqual({ ...ours.model, outputStride: null }, { ...sizes, outputStride: null });
  }),
);

Deno.test(
  "teacherOf() reads networks without a run by their shapes, and names the tensor that does not fit or is missing",
  inTestFolder(async (folder) => {
    const { tensors } = await Effect.runPromise(readSafetensors(await Deno.readFile(recording), "knn"));
    const networks = new Map(
      [...tensors].flatMap(([name, tensor]) =>
        name.startsWith("model/") ? [[name.slice("model/".length), tensor] as const] : []
      ),
    );
    const file = `${folder}/networks`;
    const readBack = async (changed: typeof networks) => {
      await Deno.writeFile(file, Buffer.concat(writeSafetensors(changed)));
      return await teacherIn(file);
    };
    const sizes = {
      arch: "resnet18",
      width: 4,
      dimHidden: 64,
      dimOut: 32,
      numPrototypes: 16,
      imageSize: 224,
    };
    assert.deepEqual((await readBack(networks)).model, { ...sizes, outputStride: undefined });

    const without = (lost: RegExp) => new Map([...networks].filter(([name]) => !lost.test(name)));
    await assert.rejects(readBack(without(/slot_embed/)), /it has no tensor grouping_k.slot_embed.weight/);
    await assert.rejects(
      readBack(without(/projector_k.mlp.4.running_var/)),
      /projector_k.mlp.4.running_var must be \[64\] by its other tensors: it has no such tensor/,
    );
    const wrong = networks.get("projector_k.mlp.4.bias")!;
    await assert.rejects(
      readBack(new Map([...networks, ["projector_k.mlp.3.bias", { ...wrong, shape: [8, 8] }]])),
      /projector_k.mlp.3.bias must be \[64\] .*: it is \[8, 8\]/,
    );
    await Deno.writeFile(file, await converted("backbone"));
    await assert.rejects(teacherIn(file), /it holds an encoder alone; expected a checkpoint of a run/);
  }),
);
