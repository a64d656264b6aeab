/** Exact nearest neighbours by cosine, of queries in a bank that need not fit into memory: it passes by, block by block. */
import { Effect } from "effect";
import { input } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import { compile } from "../../ops/runtime/program.ts";
import { transpose } from "../../ops/slice.ts";
import type { RankedClass } from "./classification.ts";

/** The neighbours of one query, nearest first. */
export interface Neighbours {
  readonly similarities: Float32Array;
  readonly places: Int32Array; // in the bank
}

// Rows of the blocks whose similarities are computed at a time.
const QUERIES = 1024, BANK = 2048;

/**
 * A bank for the `most` nearest neighbours of `queries` [Q, C]; both are normalised here. `add` takes further rows of the
 * bank, `found` ends it. Of neighbours that are equally near, the earlier one in the bank is nearer. The program lives as
 * long as the scope; memory is that of the queries and of one block.
 */
export const neighbourBank = Effect.fn("neighbourBank")(function* (
  queries: Float32Array,
  { channels: C, most, bankSize = Infinity }: {
    readonly channels: number;
    readonly most: number;
    readonly bankSize?: number; // rows that will come, where this is known
  },
) {
  const Q = queries.length / C;
  const queryRows = Math.min(Q, QUERIES), bankRows = Math.min(bankSize, BANK);
  const similarities = matmul(
    input("queries", [queryRows, C]),
    transpose(input("bank", [bankRows, C]), [1, 0]),
  );
  const program = yield* compile({ label: "the similarities", outputs: { similarities } });
  const unit = normalizedRows(queries, C);
  const queryBlocks = Array.from({ length: Math.ceil(Q / queryRows) }, (_, i) => {
    const block = new Float32Array(queryRows * C);
    block.set(unit.subarray(i * queryRows * C, (i + 1) * queryRows * C));
    return block;
  });
  const nearest = Array.from({ length: Q }, () => new Nearest(most));

  const block = new Float32Array(bankRows * C);
  let first = 0, rows = 0; // of the block
  const flush = Effect.fnUntraced(function* () {
    const take = (queryBlock: number, all: Float32Array) => {
      const from = queryBlock * queryRows;
      for (let query = from; query < Math.min(Q, from + queryRows); query++) {
        const at = (query - from) * bankRows;
        for (let row = 0; row < rows; row++) nearest[query].offer(all[at + row], first + row);
      }
    };
    let finish = Effect.void as ReturnType<typeof finishing>;
    const finishing = (run: Effect.Success<ReturnType<typeof program.run>>, i: number) =>
      Effect.map(run, ({ similarities }) => take(i, similarities));
    for (const [i, queries] of queryBlocks.entries()) {
      const run = yield* program.run({ queries, bank: block });
      yield* finish; // while the device works on the next
      finish = finishing(run, i);
    }
    yield* finish;
    first += rows;
    rows = 0;
  });

  return {
    /** Rows [n, C] that follow those before in the bank. */
    add: Effect.fnUntraced(function* (more: Float32Array) {
      const unit = normalizedRows(more, C);
      for (let at = 0; at < unit.length;) {
        const room = Math.min((bankRows - rows) * C, unit.length - at);
        block.set(unit.subarray(at, at + room), rows * C);
        rows += room / C;
        at += room;
        if (rows === bankRows) yield* flush();
      }
    }),
    /** The neighbours of each query. */
    found: Effect.gen(function* () {
      if (rows > 0) yield* flush();
      return nearest.map((each): Neighbours => each.result());
    }),
  };
});

const normalizedRows = (rows: Float32Array, C: number): Float32Array => {
  const unit = new Float32Array(rows.length);
  for (let at = 0; at < rows.length; at += C) {
    let square = 0;
    for (let c = 0; c < C; c++) square += rows[at + c] ** 2;
    const scale = square > 0 ? 1 / Math.sqrt(square) : 0;
    for (let c = 0; c < C; c++) unit[at + c] = rows[at + c] * scale;
  }
  return unit;
};

/** The largest of many numbers, sorted. */
class Nearest {
  readonly #similarities: Float32Array;
  readonly #places: Int32Array;
  #count = 0;

  constructor(most: number) {
    this.#similarities = new Float32Array(most);
    this.#places = new Int32Array(most);
  }

  offer(similarity: number, place: number): void {
    const most = this.#similarities.length;
    if (this.#count === most && similarity <= this.#similarities[most - 1]) return;
    let low = 0, high = this.#count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#similarities[middle] >= similarity) low = middle + 1;
      else high = middle;
    }
    const end = Math.min(this.#count, most - 1);
    this.#similarities.copyWithin(low + 1, low, end);
    this.#places.copyWithin(low + 1, low, end);
    this.#similarities[low] = similarity;
    this.#places[low] = place;
    this.#count = end + 1;
  }

  result = (): Neighbours => ({
    similarities: this.#similarities.slice(0, this.#count),
    places: this.#places.slice(0, this.#count),
  });
}

/**
 * Weighted k-NN: the `k` nearest neighbours vote for their classes with weights exp(similarity / temperature). Of classes
 * with as many votes, the one with the nearest neighbour comes first; those without a vote are left out. Source: Wu et al., Unsupervised Feature Learning via
 * Non-Parametric Instance Discrimination, CVPR 2018, section 3.4.
 */
export const vote = (
  { similarities, places }: Neighbours,
  labels: ArrayLike<number>, // of the bank
  { k, temperature }: { readonly k: number; readonly temperature: number },
): readonly RankedClass[] => {
  const votes = new Map<number, number>();
  let all = 0;
  for (let i = 0; i < Math.min(k, places.length); i++) {
    const weight = Math.exp((similarities[i] - similarities[0]) / temperature); // relative to the largest
    votes.set(labels[places[i]], (votes.get(labels[places[i]]) ?? 0) + weight);
    all += weight;
  }
  return [...votes].map(([label, weight]) => ({ label, share: weight / all })).sort((a, b) =>
    b.share - a.share
  );
};
