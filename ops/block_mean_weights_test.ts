import { assertClose, gpuTest } from "./_test_kit.ts";
import { blockMeanWeights } from "./block_mean_weights.ts";
import { compactRows } from "./compact_rows.ts";
import { constant } from "./graph/tensor.ts";
import { evaluate } from "./runtime/program.ts";
import { toFloat } from "./to_float.ts";

const blocks = { blocks: 3, rowsPerBlock: 4, atLeast: 2 };

gpuTest("blockMeanWeights() counts every block with chosen rows alike, and an empty one as 0", function* () {
  const rows = compactRows(constant([1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1]), 6);
  const third = 1 / 9;
  assertClose(yield* evaluate(blockMeanWeights(rows, toFloat(rows.count), blocks)), [
    third,
    third,
    third,
    1 / 3,
    0,
    0,
  ]);
});

gpuTest("blockMeanWeights() are all 0 with fewer rows than asked for", function* () {
  const rows = compactRows(constant([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), 3);
  assertClose(yield* evaluate(blockMeanWeights(rows, toFloat(rows.count), blocks)), [0, 0, 0]);
});

gpuTest("blockMeanWeights() counts rows that other ranks have chosen", function* () {
  const rows = compactRows(constant([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), 2);
  assertClose(yield* evaluate(blockMeanWeights(rows, constant([2]), blocks)), [1 / 3, 0]);
});
