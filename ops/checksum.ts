/** Checksums of a tensor's bits, which tell tensors apart also where values compare as equal (NaN, −0). */
import { sizeOf } from "./graph/shape.ts";
import { defineOp, type Tensor } from "./graph/tensor.ts";
import { kernel } from "./kernels/wgsl.ts";

/** Invocations, each of which hashes every 64th word. */
const LANES = 64;

/**
 * 64 checksums of the bits of x as [128], whole numbers below 2^16: equal for equal bits, and almost surely different
 * otherwise. No gradient.
 */
export const checksum = (x: Tensor): Tensor => checksumOp([x], undefined);

const checksumOp = defineOp("checksum", {
  takes: "any",
  shape: () => [2 * LANES],
  kernels: ({ inputs: [x], output }) => [kernel({
    label: "checksum",
    reads: { x },
    writes: { sums: output },
    sizes: { size: sizeOf(x.shape), lanes: LANES },
    threads: LANES,
    // FNV-1a, a word at a time.
    main: /* wgsl */ `
  var sum = 2166136261u;
  for (var i = id; i < p.size; i += p.lanes) { sum = (sum ^ bitcast<u32>(x[i])) * 16777619u; }
  // A word does not fit an f32, its halves do.
  sums[2u * id] = f32(sum & 0xffffu);
  sums[2u * id + 1u] = f32(sum >> 16u);`,
  })],
});
