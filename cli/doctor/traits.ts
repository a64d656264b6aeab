/** Traits of adapters that need not be there, as `--traits` names them. */
import { Option } from "effect";
import type { AdapterTraits } from "../../ops/graph/lowering.ts";
import { bytesIn } from "../../pipeline/run/bytes.ts";

/**
 * What Deno's own WebGPU gives: on llvmpipe (Mesa 25.0) and on desktop GPUs, of whose buffers 24
 * are used and whose bindings have at most 2^31 − 4 bytes. It lacks WGSL's `subgroup_id`, which Dawn has.
 */
const TYPICAL: Readonly<Record<string, AdapterTraits>> = {
  cpu: { cpu: true, maxStorageBuffers: 24, maxBinding: 2 ** 27, shaderF16: true, minSubgroupSize: 0 },
  gpu: { cpu: false, maxStorageBuffers: 24, maxBinding: 2 ** 31 - 4, shaderF16: true, minSubgroupSize: 0 },
};

const count = (text: string): number => /^\d+$/.test(text) ? Number(text) : NaN;

/** What can be changed of them; NaN where a value is none. */
const CHANGES: Readonly<Record<string, (value: string) => Partial<Record<keyof AdapterTraits, number>>>> = {
  "max-storage-buffers": (value) => ({ maxStorageBuffers: count(value) }),
  "max-binding": (value) => ({ maxBinding: bytesIn(value) }),
  "min-subgroup-size": (value) => ({ minSubgroupSize: count(value) }),
};

/** What `parseTraits` understands, in words. */
export const TRAITS_SYNTAX =
  `"cpu" or "gpu", followed perhaps by ",min-subgroup-size=32", ",max-binding=128MiB" or ",max-storage-buffers=8"`;

/** Traits from a text such as "cpu" or "gpu,min-subgroup-size=32"; none where it cannot be understood. */
export const parseTraits = (text: string): Option.Option<AdapterTraits> => {
  const [name, ...changes] = text.split(",");
  if (!Object.hasOwn(TYPICAL, name)) return Option.none();
  let traits = TYPICAL[name];
  for (const [trait, value = ""] of changes.map((change) => change.split("=", 2))) {
    if (!Object.hasOwn(CHANGES, trait)) return Option.none();
    const change = CHANGES[trait](value);
    if (Object.values(change).some(Number.isNaN)) return Option.none();
    traits = { ...traits, ...change } as AdapterTraits;
  }
  return Option.some(traits);
};
