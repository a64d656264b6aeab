/** Matrices with rows and columns exchanged, for kernels that read fastest along the other side. */
import { lines } from "./_product.ts";
import { type Kernel, kernel, type Operand, vectors } from "./kernel.ts";
import { sizeOf } from "./tensor.ts";

/** x [..., R, C] to y [..., C, R], in blocks of 4×4 where sizes allow; neighbours write side by side. */
export const turned = (x: Operand, y: Operand): Kernel => {
  const [R, C] = x.shape.slice(-2);
  const width = R % 4 === 0 && C % 4 === 0 ? 4 : 1;
  const bind = width === 4 ? vectors : (operand: Operand) => operand;
  const each = C % (4 * width) === 0 ? 4 : 1; // neighbours along a row share a line of the cache
  const part = (j: number) => width === 4 ? `vec4(r0[${j}], r1[${j}], r2[${j}], r3[${j}])` : "r0";
  return kernel({
    label: "turned",
    reads: { x: bind(x) },
    writes: { y: bind(y) },
    sizes: { R: R / width, C: C / width, across: C / width / each, each },
    threads: sizeOf(x.shape) / width ** 2 / each,
    main: `
  let r = id % p.R;
  let first = id / p.R % p.across * p.each;
  let matrix = id / p.R / p.across;
  for (var c = first; c < first + p.each; c++) {
  ${lines(width, (j) => `let r${j} = x[((matrix * p.R + r) * ${width}u + ${j}u) * p.C + c];`)}
  ${lines(width, (j) => `y[((matrix * p.C + c) * ${width}u + ${j}u) * p.R + r] = ${part(j)};`)}
  }`,
  });
};
