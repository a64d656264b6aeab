import assert from "node:assert/strict";
import { gpuTest, numbers } from "../../ops/_test_kit.ts";
import { neighbourBank, type Neighbours, vote } from "./nearest_neighbours.ts";

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const cosine = (a: Float32Array, b: Float32Array) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
const rowsOf = (all: Float32Array, C: number) =>
  Array.from({ length: all.length / C }, (_, i) => all.subarray(i * C, (i + 1) * C));

gpuTest(
  "neighbourBank() finds what a plain loop over all pairs finds, over several blocks of both",
  function* () {
    const [Q, B, C, most] = [1030, 4100, 6, 7];
    const queries = numbers(Q * C, 1), bank = numbers(B * C, 2);
    const opened = yield* neighbourBank(queries, { channels: C, most });
    // In pieces that do not end where blocks do.
    for (let at = 0; at < bank.length; at += 1500 * C) yield* opened.add(bank.subarray(at, at + 1500 * C));
    const found = yield* opened.found;

    const bankRows = rowsOf(bank, C);
    rowsOf(queries, C).forEach((query, i) => {
      const all = bankRows.map((row, place) => ({ place, similarity: cosine(query, row) }));
      const nearest = all.sort((a, b) => b.similarity - a.similarity).slice(0, most);
      nearest.forEach(({ similarity }, rank) => {
        const place = found[i].places[rank];
        assert.ok(Math.abs(found[i].similarities[rank] - similarity) < 1e-6, `query ${i}, rank ${rank}`);
        // Another place only where it is as near but for rounding.
        assert.ok(Math.abs(cosine(query, bankRows[place]) - similarity) < 1e-6, `query ${i}, rank ${rank}`);
      });
      assert.equal(new Set(found[i].places).size, most);
    });
  },
);

gpuTest(
  "neighbourBank() gives all of a bank that is smaller than asked for, and puts rows of zeros last",
  function* () {
    const bank = yield* neighbourBank(Float32Array.of(3, 4), { channels: 2, most: 20, bankSize: 3 });
    yield* bank.add(Float32Array.of(0, 0, 0, 2, 6, 8));
    const [{ places, similarities }] = yield* bank.found;
    assert.deepEqual([...places], [2, 1, 0]);
    [1, 0.8, 0].forEach((expected, i) => assert.ok(Math.abs(similarities[i] - expected) < 1e-6));
  },
);

Deno.test("vote() weighs the k nearest neighbours by exp(similarity / temperature)", () => {
  const neighbours: Neighbours = {
    similarities: Float32Array.of(0.9, 0.8, 0.75, 0.7),
    places: Int32Array.of(3, 0, 2, 1),
  };
  const labels = [5, 9, 5, 2];
  const weight = (similarity: number) => Math.exp(Math.fround(similarity) / 0.07);
  const all = weight(0.9) + weight(0.8) + weight(0.75);
  const votes = vote(neighbours, labels, { k: 3, temperature: 0.07 });
  assert.deepEqual(votes.map(({ label }) => label), [2, 5]);
  assert.ok(Math.abs(votes[0].share - weight(0.9) / all) < 1e-12);
  assert.ok(Math.abs(votes[1].share - (weight(0.8) + weight(0.75)) / all) < 1e-12);
  // At a high temperature the majority counts, not the nearest.
  assert.equal(vote(neighbours, labels, { k: 3, temperature: 10 })[0].label, 5);
});
