/**
 * Keeps of a recording of steps what its first step needs:
 *
 *     deno run --allow-read --allow-write testdata/steps/first_step.ts WHOLE.safetensors FIRST.safetensors
 */
import { Effect } from "effect";
import { readSafetensors, writeSafetensors } from "../../data/formats/safetensors.ts";

const [whole, first] = Deno.args;
const { tensors, metadata } = await Effect.runPromise(readSafetensors(await Deno.readFile(whole), whole));
const kept = new Map([...tensors].filter(([name]) => /^(init|step0)\//.test(name)));
const pieces = writeSafetensors(kept, {
  ...metadata,
  config: JSON.stringify({ ...JSON.parse(metadata.config), steps: 1 }),
  steps: JSON.stringify(JSON.parse(metadata.steps).slice(0, 1)),
});
await Deno.writeFile(first, ReadableStream.from(pieces));
