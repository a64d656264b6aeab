/**
 * Operands stored in f16. Kernels are written in f32; for such operands their WGSL is rewritten: loads are widened,
 * stores are narrowed to the nearest f16 (to infinity beyond 65504). A vec4 is stored as two packed words.
 */
import type { Narrowing } from "../graph/kernel.ts";

/** The element type of an array of f16, or of vec4s of them. */
export const halfElement = (vector: boolean): string => vector ? "vec2<u32>" : "f16";

/**
 * Rewrites WGSL so that its loads from, or stores to, the array `name` of `halfElement`s convert. Throws where a kernel
 * reads an array that it writes: a sum that it keeps there would be rounded at each addition.
 */
export const halfAccess = (code: string, name: string, vector: boolean, access: "read" | "write"): string => {
  const change = (text: string): string =>
    eachAccess(text, name, (index, rest) => {
      const element = `${name}[${index}]`;
      if (access === "read") {
        return { text: vector ? `widened(${element})` : `f32(${element})`, taken: 0 };
      }
      const [assignment] = rest.match(/^\s*=(?!=)/) ?? [];
      if (assignment === undefined) {
        throw new Error(
          `a kernel reads ${name} that it writes, in f16: keep sums in variables or in scratch memory`,
        );
      }
      const end = rest.indexOf(";");
      const value = change(rest.slice(assignment.length, end)).trim();
      return { text: `${element} = ${vector ? "narrowed" : "f16"}(${value})`, taken: end };
    });
  return change(code.replace(/\/\/.*/g, "")); // comments may look like code
};

/** WGSL: the functions that these accesses call for vectors. */
export const conversions = (narrowing: Narrowing): string => `
fn widened(words: vec2<u32>) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
fn narrowed(x: vec4<f32>) -> vec2<u32> {${narrowing === "native" ? NATIVE : BY_INTEGERS}}`;

const NATIVE = "return vec2<u32>(pack2x16float(x.xy), pack2x16float(x.zw));";

// Rounds to the nearest, ties to even: normal numbers by a carry into the bits that remain; numbers below 2^-14 by
// adding 0.5, so that the last bit of the sum is 2^-24, the smallest f16.
const BY_INTEGERS = `
  let bits = bitcast<vec4<u32>>(x);
  let size = bits & vec4<u32>(0x7fffffffu);
  let even = (size >> vec4<u32>(13u)) & vec4<u32>(1u);
  let normal = (size + even + vec4<u32>(0xc8000fffu)) >> vec4<u32>(13u);
  let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(size) + vec4<f32>(0.5)) - vec4<u32>(0x3f000000u);
  let beyond = select(vec4<u32>(0x7c00u), vec4<u32>(0x7e00u), size > vec4<u32>(0x7f800000u));
  let finite = select(normal, small, size < vec4<u32>(0x38800000u));
  let half = select(finite, beyond, size >= vec4<u32>(0x477ff000u)) | ((bits >> vec4<u32>(16u)) & vec4<u32>(0x8000u));
  return half.xz | (half.yw << vec2<u32>(16u));
`;

/**
 * Replaces every `name[index]`, and as much of the text after it as `replacement` takes; accesses in `index` come
 * first.
 */
const eachAccess = (
  code: string,
  name: string,
  replacement: (index: string, rest: string) => { readonly text: string; readonly taken: number },
): string => {
  const access = new RegExp(`(?<![\\w.])${name}\\s*\\[`, "g");
  let result = "";
  let at = 0;
  for (let match = access.exec(code); match !== null; match = access.exec(code)) {
    const end = closing(code, access.lastIndex);
    const index = eachAccess(code.slice(access.lastIndex, end), name, replacement);
    const { text, taken } = replacement(index, code.slice(end + 1));
    result += code.slice(at, match.index) + text;
    at = access.lastIndex = end + 1 + taken;
  }
  return result + code.slice(at);
};

/** The index of the bracket that closes the one opened before `from`. */
const closing = (code: string, from: number): number => {
  let depth = 1;
  let at = from;
  while (depth > 0) {
    if (at === code.length) throw new Error(`a bracket is not closed: ${code.slice(from - 20)}`);
    if (code[at] === "[") depth++;
    if (code[at] === "]") depth--;
    at++;
  }
  return at - 1;
};
