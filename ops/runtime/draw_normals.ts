/**
 * Normal random numbers drawn on the device, bit for bit those of data/random/normals.ts on the host: Philox4x32-10 and
 * a table of quantiles, in integer arithmetic up to one last product, which no compiler can fuse with anything.
 */
import { Effect } from "effect";
import type { Kernel, Operand } from "../graph/kernel.ts";
import { kernel, vectors } from "../kernels/wgsl.ts";
import { dispatchesOf, encodeDispatches } from "./dispatches.ts";
import { Gpu, type GpuError, STORAGE } from "./gpu.ts";

/** `count` normal numbers, whole multiples of `scale`, which are written to each of the buffers. */
export interface Draw {
  /** Each holds `count` numbers, rounded up to a multiple of 4. */
  readonly buffers: readonly GPUBuffer[];
  /** How many numbers. */
  readonly count: number;
  /** The unit of the quantiles: a number is `scale` times a signed entry of the table, interpolated. */
  readonly scale: number;
  /** Key and counter of the stream: at most five words in [0, 2^32). */
  readonly key: readonly number[];
}

/**
 * Draws by the table of quantiles (u32) that data/random/normals.ts describes; work submitted later finds the numbers
 * there. A single submission, since Mesa's software driver accepts the next one only when it is done. Fails with
 * GpuError.
 */
export const drawNormals: (
  draws: readonly Draw[],
  quantiles: Uint32Array<ArrayBuffer>,
) => Effect.Effect<void, GpuError, Gpu> = Effect.fn("drawNormals")(function* (draws, quantiles) {
  const { device, buffer, check, traits } = yield* Gpu;
  const table = yield* buffer("quantiles", quantiles.byteLength, STORAGE);
  device.queue.writeBuffer(table, 0, quantiles);
  const tableOperand: Operand = { shape: [quantiles.length], dtype: "u32", storage: draws.length, offset: 0 };
  const largestPiece = Math.floor(traits.maxBinding / 256) * 64; // a binding begins at a multiple of 256 bytes
  const kernels = draws.flatMap(({ count, ...draw }, storage) => {
    const padded = Math.ceil(count / BLOCK) * BLOCK; // as buffers are
    return Array.from({ length: Math.ceil(padded / largestPiece) }, (_, i) => {
      const offset = i * largestPiece;
      const shape = [Math.min(largestPiece, padded - offset)];
      return normalsKernel(tableOperand, { shape, dtype: "f32", storage, offset }, draw);
    });
  });
  const bind = yield* dispatchesOf(kernels);
  const dispatches = bind(({ shape: [size], storage, offset }) => ({
    buffer: draws[storage]?.buffers[0] ?? table,
    offset: 4 * offset,
    size: 4 * size,
  }));
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  encodeDispatches(pass, dispatches);
  pass.end();
  for (const { buffers: [first, ...others], count } of draws) {
    for (const other of others) encoder.copyBufferToBuffer(first, 0, other, 0, 4 * count);
  }
  device.queue.submit([encoder.finish()]);
  yield* check;
}, Effect.scoped);

/** Words that Philox4x32 makes of one counter. */
const BLOCK = 4;

const normalsKernel = (
  quantiles: Operand,
  values: Operand,
  { scale, key: [k0 = 0, k1 = 0, c1 = 0, c2 = 0, c3 = 0] }: Pick<Draw, "scale" | "key">,
): Kernel =>
  kernel({
    label: "normals",
    reads: { quantiles },
    writes: { values: vectors(values) },
    sizes: {
      ...{ first: values.offset / BLOCK, k0, k1, c1, c2, c3 },
      scale: new Uint32Array(Float32Array.of(scale).buffer)[0],
    },
    threads: values.shape[0] / BLOCK,
    functions: /* wgsl */ `
const FACTORS = vec2(0xd2511f53u, 0xcd9e8d57u);

// Upper words of the products with FACTORS, by halves.
fn high(words: vec2<u32>) -> vec2<u32> {
  let low = words & vec2(0xffffu); let up = words >> vec2(16u);
  let f = FACTORS & vec2(0xffffu); let g = FACTORS >> vec2(16u);
  let middle = g * low + ((f * low) >> vec2(16u));
  let carry = ((middle & vec2(0xffffu)) + f * up) >> vec2(16u);
  return g * up + (middle >> vec2(16u)) + carry;
}

fn philox(counter: vec4<u32>, start: vec2<u32>) -> vec4<u32> {
  var c = counter; var key = start;
  for (var round = 0u; round < 10u; round++) {
    let up = high(c.xz); let low = FACTORS * c.xz;
    c = vec4(up.y ^ c.y ^ key.x, low.y, up.x ^ c.w ^ key.y, low.x);
    key += vec2(0x9e3779b9u, 0xbb67ae85u);
  }
  return c;
}

fn normal(word: u32) -> f32 {
  let share = word | 1u;
  let zeros = countLeadingZeros(share);
  let digits = share << zeros;
  let i = (31u - zeros) * 128u + ((digits >> 24u) & 0x7fu);
  let upper = quantiles[i];
  let z = i32(upper - (((upper - quantiles[i + 1u]) * ((digits >> 7u) & 0x1ffffu) + 0x10000u) >> 17u));
  return f32(select(z, -z, (word & 1u) == 1u));
}`,
    main: /* wgsl */ `
  let words = philox(vec4(p.first + id, p.c1, p.c2, p.c3), vec2(p.k0, p.k1));
  values[id] = bitcast<f32>(p.scale) * vec4(normal(words.x), normal(words.y), normal(words.z), normal(words.w));`,
  });
