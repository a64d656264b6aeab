/**
 * Exact nearest neighbours by cosine, of queries in a bank that is added block by block, and need not fit into memory.
 */
import { Effect, type Scope } from "effect";
import type { PlanError } from "../../ops/compiler/limits.ts";
import { input } from "../../ops/graph/tensor.ts";
import { matmul } from "../../ops/matmul.ts";
import type { Gpu, GpuError } from "../../ops/runtime/gpu.ts";
import { compile } from "../../ops/runtime/program.ts";
import { transpose } from "../../ops/slice.ts";
import type { RunError } from "../inference/descriptors.ts";
import type { RankedClass } from "./classification.ts";

/** The neighbours of one query, nearest first. */
export interface Neighbours {
  /** Cosines, the largest first. */
  readonly similarities: Float32Array;
  /** Indices in the bank. */
  readonly places: Int32Array;
}

/** The size of a bank. */
export interface BankOptions {
  /** Channels C of a row. */
  readonly channels: number;
  /** The number of neighbours to find for each query. */
  readonly most: number;
  /** The number of rows that will be added, where it is known. */
  readonly bankSize?: number;
}

/** A bank that is being searched. */
export interface NeighbourBank {
  /** Adds rows [n, C] to the bank. */
  readonly add: (rows: Float32Array) => Effect.Effect<void, RunError>;
  /** The neighbours of each query in the whole bank; nothing can be added after it. */
  readonly found: Effect.Effect<Neighbours[], RunError>;
}

/** Rows of the blocks of queries and of the bank whose similarities are computed at a time. */
const QUERIES = 1024, BANK = 2048;

/**
 * An empty bank for the nearest neighbours of `queries` [Q, C]; the rows of both are normalised here. Of two
 * neighbours with the same similarity, the earlier one in the bank is nearer. The program lives as long as the scope;
 * memory holds the queries and one block. Fails with PlanError or GpuError.
 */
export const neighbourBank: (
  queries: Float32Array,
  options: BankOptions,
) => Effect.Effect<NeighbourBank, PlanError | GpuError, Gpu | Scope.Scope> = Effect.fn("neighbourBank")(
  function* (
    queries,
    { channels: C, most, bankSize = Infinity },
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
        yield* finish; // while the device works on the next block
        finish = finishing(run, i);
      }
      yield* finish;
      first += rows;
      rows = 0;
    });

    return {
      add: Effect.fnUntraced(function* (more) {
        const unit = normalizedRows(more, C);
        for (let at = 0; at < unit.length;) {
          const room = Math.min((bankRows - rows) * C, unit.length - at);
          block.set(unit.subarray(at, at + room), rows * C);
          rows += room / C;
          at += room;
          if (rows === bankRows) yield* flush();
        }
      }),
      found: Effect.gen(function* () {
        if (rows > 0) yield* flush();
        return nearest.map((each): Neighbours => each.result());
      }),
    };
  },
);

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

/** The largest of many similarities, sorted, with their places. */
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
 * Weighted k-NN: the `k` nearest neighbours vote for their classes, `labels` of the bank, with weights exp(similarity
 * / temperature). Of classes with equal votes, the one with the nearest neighbour comes first; classes without a vote
 * are left out. Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR
 * 2018, section 3.4.
 */
export const vote = (
  { similarities, places }: Neighbours,
  labels: ArrayLike<number>,
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
