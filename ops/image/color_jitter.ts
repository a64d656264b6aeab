/** Colour jitter and reduction to luma. */
import { defineOp, type Tensor } from "../graph/tensor.ts";
import { kernel } from "../kernels/wgsl.ts";
import { checkedImages, pixelFunctions } from "./_pixel.ts";
import { AUGMENTATION_ROW, JITTER } from "./augmentation_row.ts";

/**
 * Each view's colour operations in their order, then its reduction to luma, bit for bit as by the 8-bit operations of
 * Pillow and torchvision.
 *
 *     brightness  f·v            contrast  m + f·(v − m)      m: rounded mean luma of the image before this operation
 *     saturation  L + f·(v − L)  hue       rotated in HSV     L: luma of the pixel
 *
 * images: u32 [N, S, S]; views: u32 [N, words]. Result: u32 [N, S, S]. Throws ShapeError where these do not fit.
 */
export const colorJitter = (images: Tensor, views: Tensor): Tensor =>
  colorJitterOp([images, views, lumaSums([images, views])]);

const colorJitterOp = defineOp("colorJitter", {
  takes: ["u32", "u32", "u32"],
  shape: ([images, views]) => checkedImages("colorJitter", images, views),
  dtype: "u32",
  kernels: ({ inputs: [images, views, sums], output }) => {
    const [count, size] = images.shape;
    return [kernel({
      label: "colorJitter",
      reads: { pictures: images, views, sums },
      writes: { coloured: output },
      sizes: { size, words: views.shape[1] },
      threads: count * size,
      functions: pixelFunctions + colourFunctions,
      // One invocation per column.
      main: /* wgsl */ `
  let view = id / p.size;
  let table = view * p.words;
  var sum = 0u;
  for (var part = 0u; part < ${PARTS}u; part++) { sum += sums[view * ${PARTS}u + part]; }
  let mean = (sum + p.size * p.size / 2u) / (p.size * p.size);
  for (var y = 0u; y < p.size; y++) {
    let at = (view * p.size + y) * p.size + id % p.size;
    var rgb = unpack(pictures[at]);
    for (var operation = 0u; operation < 4u; operation++) { rgb = jitter(rgb, table, operation, mean); }
    if (views[table + ${AUGMENTATION_ROW.gray}u] == 1u) { rgb = vec3(luma(rgb)); }
    coloured[at] = pack(rgb);
  }`,
    })];
  },
});

/** The luma of every image just before its contrast changes, as PARTS partial sums: u32 [N, PARTS]. */
const lumaSums = defineOp("lumaSums", {
  takes: ["u32", "u32"],
  shape: ([images, views]) => [checkedImages("lumaSums", images, views)[0], PARTS],
  dtype: "u32",
  kernels: ({ inputs: [images, views], output }) => {
    const [count, size] = images.shape;
    return [kernel({
      label: "lumaSums",
      reads: { pictures: images, views },
      writes: { sums: output },
      sizes: { pixels: size * size, words: views.shape[1] },
      threads: count * PARTS,
      functions: pixelFunctions + colourFunctions,
      main: /* wgsl */ `
  let view = id / ${PARTS}u;
  let table = view * p.words;
  var contrast = 0u;
  while (contrast < 4u && kind(table, contrast) != ${JITTER.contrast}u) { contrast++; }
  if (contrast == 4u) { return; } // nothing reads the sums
  var sum = 0u;
  for (var pixel = id % ${PARTS}u; pixel < p.pixels; pixel += ${PARTS}u) {
    var rgb = unpack(pictures[view * p.pixels + pixel]);
    for (var operation = 0u; operation < contrast; operation++) { rgb = jitter(rgb, table, operation, 0u); }
    sum += luma(rgb);
  }
  sums[id] = sum;`,
    })];
  },
});

/** Invocations that sum over one image. */
const PARTS = 64;

const colourFunctions = /* wgsl */ `
fn kind(table: u32, operation: u32) -> u32 { return views[table + ${AUGMENTATION_ROW.jitter}u + 2u * operation]; }

fn jitter(rgb: vec3<u32>, table: u32, operation: u32, mean: u32) -> vec3<u32> {
  let amount = views[table + ${AUGMENTATION_ROW.jitter + 1}u + 2u * operation];
  switch kind(table, operation) {
    case ${JITTER.brightness}u: { return blend(0u, rgb, amount, table); }
    case ${JITTER.contrast}u: { return blend(mean, rgb, amount, table); }
    case ${JITTER.saturation}u: { return blend(luma(rgb), rgb, amount, table); }
    case ${JITTER.hue}u: { return turnHue(rgb, amount); }
    default: { return rgb; }
  }
}

fn luma(rgb: vec3<u32>) -> u32 { return (19595u * rgb.r + 38470u * rgb.g + 7471u * rgb.b + 0x8000u) >> 16u; }

// Pillow rounds the product to f32 before it adds. A compiler may skip that rounding by fusing both into one
// instruction, unless something unknown to it stands between them: the table's zero.
fn blend(origin: u32, rgb: vec3<u32>, factor: u32, table: u32) -> vec3<u32> {
  let base = vec3(f32(origin));
  let change = bitcast<vec3<u32>>(bitcast<f32>(factor) * (vec3<f32>(rgb) - base));
  let moved = base + bitcast<vec3<f32>>(change ^ vec3(views[table + ${AUGMENTATION_ROW.zero}u]));
  return vec3<u32>(clamp(moved, vec3(0.0), vec3(255.0)));
}

// To HSV with 8 bits each, hue turned, and back. Pillow computes in f32; the same in whole numbers needs no rounding
// rule of the device. The two agree everywhere, except where the hue is exactly whole before it is cut to 8 bits:
// there f32 comes out just below for the hues whose bits are set here.
const JUST_BELOW = array<u32, 8>(0xfffffffeu, 0x0u, 0x11000000u, 0x111u, 0x222aaaaau, 0x23232222u, 0x22222u, 0x0u);
fn turnHue(rgb: vec3<u32>, shift: u32) -> vec3<u32> {
  let value = max(rgb.r, max(rgb.g, rgb.b));
  let chroma = value - min(rgb.r, min(rgb.g, rgb.b));
  if (chroma == 0u) { return rgb; }
  var sixths = 6u * chroma; // 6 · chroma is a turn
  if (rgb.r == value) { sixths += rgb.g - rgb.b; }
  else if (rgb.g == value) { sixths += 2u * chroma + rgb.b - rgb.r; }
  else { sixths += 4u * chroma + rgb.r - rgb.g; }
  sixths %= 6u * chroma;
  var hue = 85u * sixths / (2u * chroma);
  if (85u * sixths % (2u * chroma) == 0u) {
    var table = JUST_BELOW;
    hue -= (table[hue / 32u] >> (hue % 32u)) & 1u;
  }
  let saturation = 255u * chroma / value;

  hue = (hue + shift) & 255u;
  let sector = 6u * hue / 255u;
  let rest = 6u * hue - 255u * sector; // within the sector, of 255
  let low = (2u * value * (255u - saturation) + 255u) / 510u;
  let falling = (2u * value * (65025u - saturation * rest) + 65025u) / 130050u;
  let rising = (2u * value * (65025u - saturation * (255u - rest)) + 65025u) / 130050u;
  switch sector % 6u {
    case 0u: { return vec3(value, rising, low); }
    case 1u: { return vec3(falling, value, low); }
    case 2u: { return vec3(low, value, rising); }
    case 3u: { return vec3(low, falling, value); }
    case 4u: { return vec3(rising, low, value); }
    default: { return vec3(value, low, falling); }
  }
}`;
