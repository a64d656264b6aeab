import { assertClose, gpuTest, numbers } from "../_test_kit.ts";
import type { AdapterTraits } from "../graph/lowering.ts";
import { constant, defineOp } from "../graph/tensor.ts";
import { evaluate } from "../runtime/program.ts";
import { rowVariants, type RowWork } from "./row_reduction.ts";
import { kernel } from "./wgsl.ts";

interface Dealt {
  readonly variant: string;
  readonly lanes: number;
  readonly subgroups: number;
}

/** Subgroups in the words of WGSL without them: `dealt` says which one each lane is in. */
const emulated = ({ lanes }: Dealt) => /* wgsl */ `
var<private> own: u32;
var<workgroup> values: array<f32, ${lanes}>;
fn share(value: f32) { workgroupBarrier(); values[own] = value; workgroupBarrier(); }
fn subgroupAdd(value: f32) -> f32 {
  share(value);
  var sum = 0.0;
  for (var i = 0u; i < ${lanes}u; i++) { if (dealt[i] == dealt[own]) { sum += values[i]; } }
  return sum;
}
fn subgroupMax(value: f32) -> f32 {
  share(value);
  var top = value;
  for (var i = 0u; i < ${lanes}u; i++) { if (dealt[i] == dealt[own]) { top = max(top, values[i]); } }
  return top;
}
fn subgroupElect() -> bool {
  var first = 0u;
  while (dealt[first] != dealt[own]) { first++; }
  return first == own;
}`;

/** The largest and the sum of each row, by lanes that are dealt to subgroups so. */
const reduced = defineOp<Dealt>("reduced", {
  takes: ["f32", "u32"],
  shape: ([x]) => [x.shape[0], 3],
  kernels: ({ inputs: [x, dealt], output, attributes, adapter }) => {
    const { variant, subgroups } = attributes;
    const [rows, width] = x.shape;
    const kernelOf = ({ launch, functions, origin, largest, total }: RowWork) =>
      kernel({
        label: "reduced",
        reads: { x, dealt },
        writes: { y: output },
        sizes: { rows, width },
        ...launch,
        subgroups: false,
        functions: emulated(attributes) + functions,
        main: /* wgsl */ `
  own = lane; let subgroup = dealt[lane]; let subgroups = ${subgroups}u;
  ${origin}
  var top = -3.4028234e38; var sum = 0.0; var squares = 0.0;
  for (var k = start; k < p.width; k += step) {
    let value = x[row * p.width + k];
    top = max(top, value); sum += value; squares += value * value;
  }
  let all = vec3<f32>(${largest("top")}, ${total("sum")}, ${total("squares")});
  if (lane == p.width % ${attributes.lanes}u) { for (var i = 0u; i < 3u; i++) { y[row * 3u + i] = all[i]; } }`,
      });
    const traits: AdapterTraits = { ...adapter, cpu: false, minSubgroupSize: 4 };
    return rowVariants(width, traits, (split) => [kernelOf(split(rows))])[variant]();
  },
});

gpuTest("rows are combined by subgroups of any size, however lanes are dealt to them", function* () {
  const [rows, width] = [3, 333];
  const x = numbers(rows * width).map((value) => value - 2); // all negative: nobody takes zeros for the largest
  const want = Array.from({ length: rows }, (_, row) => x.subarray(row * width, (row + 1) * width)).flatMap((
    row,
  ) => [
    Math.max(...row),
    row.reduce((sum, value) => sum + value, 0),
    row.reduce((sum, value) => sum + value * value, 0),
  ]);
  for (const lanes of [64, 256]) {
    for (const size of [4, 8, 32, 64, 128]) {
      const count = Math.ceil(lanes / size);
      const deals: Record<string, (lane: number) => number> = {
        "one after the other": (lane) => Math.floor(lane / size),
        "in turns": (lane) => lane % count,
        "from the last": (lane) => Math.floor((lanes - 1 - lane) / size),
        "unevenly": (lane) => Math.floor(((lane * 37) % lanes) ** 2 / lanes ** 2 * count),
      };
      for (const [deal, of] of Object.entries(deals)) {
        const dealt = constant(Uint32Array.from({ length: lanes }, (_, lane) => of(lane)));
        const variant = `a row ${lanes} invocations, by subgroups`;
        const got = yield* evaluate(
          reduced([constant(x, [rows, width]), dealt], { variant, lanes, subgroups: count }),
        );
        assertClose(got, want, { rtol: 1e-6, what: `${lanes} lanes in subgroups of ${size}, dealt ${deal}` });
      }
    }
  }
});
