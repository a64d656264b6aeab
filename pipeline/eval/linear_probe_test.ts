import assert from "node:assert/strict";
import { fillNormals } from "../../data/random/normals.ts";
import { randomStream } from "../../data/random/random.ts";
import { gpuTest } from "../../ops/_test_kit.ts";
import { linearProbe } from "./linear_probe.ts";

const CLASSES = 4, C = 12;

/** Classes that a hyperplane tells apart, at scales and offsets that differ a thousandfold from channel to channel. */
const samples = (count: number, seed: number) => {
  const random = randomStream(seed);
  const labels = Array.from({ length: count }, () => random.integer(CLASSES));
  const noise = new Float32Array(count * C);
  fillNormals(noise, [seed, 1], 1);
  const features = labels.map((label, i) =>
    noise.slice(C * i, C * (i + 1)).map((value, c) =>
      10 ** (c % 4 - 2) * (3 + value + (c % CLASSES === label ? 4 : 0))
    )
  );
  return { features, labels };
};

const options = {
  ...{ stage: "test", classes: CLASSES, epochs: 30, batchSize: 64, seed: 1 },
  ...{ rate: 2, momentum: 0.9, weightDecay: 0 },
};
const accuracy = (ranked: readonly (readonly { readonly label: number }[])[], labels: readonly number[]) =>
  ranked.filter(([first], i) => first.label === labels[i]).length / labels.length;

gpuTest("linearProbe() learns classes that a hyperplane tells apart, and repeats itself", function* () {
  const train = samples(500, 1), val = samples(300, 2);
  const { ranked, loss } = yield* linearProbe(train, val.features, options);
  assert.ok(accuracy(ranked, val.labels) > 0.97, String(accuracy(ranked, val.labels)));
  assert.ok(loss! < 0.2, String(loss));
  ranked.forEach((votes) => {
    assert.equal(votes.length, CLASSES);
    assert.ok(Math.abs(votes.reduce((sum, { share }) => sum + share, 0) - 1) < 1e-6);
    votes.slice(1).forEach(({ share }, i) => assert.ok(share <= votes[i].share));
  });
  assert.deepEqual(yield* linearProbe(train, val.features, options), { ranked, loss });
});

gpuTest("linearProbe() learns nothing about other pictures from labels at random", function* () {
  const train = samples(500, 1), val = samples(300, 2), random = randomStream(3);
  const labels = train.labels.map(() => random.integer(CLASSES));
  const { ranked } = yield* linearProbe({ ...train, labels }, val.features, options);
  const found = accuracy(ranked, val.labels);
  assert.ok(Math.abs(found - 1 / CLASSES) < 0.12, String(found));
});
