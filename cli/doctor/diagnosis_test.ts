import assert from "node:assert/strict";
import { Effect } from "effect";
import { configure } from "../../pipeline/pretrain/config.ts";
import { diagnose, type Facts } from "./diagnosis.ts";

const GIB = 2 ** 30;

/** A machine with a GPU on which nothing is wrong. */
const healthy: Facts = {
  words: "resnet50",
  config: { ...Effect.runSync(configure("coco-800")), batchSize: 64, numWorkers: 8 },
  adapter: {
    backend: "native",
    vendor: "4318",
    architecture: "",
    description: "Some GPU",
    software: false,
    features: [],
    limits: { maxStorageBufferBindingSize: 2 ** 27, maxBufferSize: 2 ** 31 },
  },
  drivers: [{ name: "lvp", vulkan: "1.3.230" }, { name: "nvidia", vulkan: "1.3.242" }],
  devices: [],
  plan: {
    kernels: 3000,
    groups: { state: GIB, batch: GIB / 16, constants: 0, activations: 11 * GIB, scratch: 0 },
    peakBytes: 12 * GIB,
    reservedBytes: 13 * GIB,
    besides: {},
    recomputed: { tensors: 0, bytes: 0, work: 0 },
    largest: [],
    sliced: 0,
    refusal: null,
  },
  smallerBatch: null,
  freeMemory: 2 * GIB,
  decodedPerSecond: 320,
  versions: { Deno: "2.9.6" },
  output: "writable",
  images: null,
  ranks: null,
};
const software = { ...healthy.adapter, software: true };

/** What is not in order. */
const complaints = (facts: Partial<Facts>) =>
  diagnose({ ...healthy, ...facts }).filter(({ level }) => level !== "ok");

Deno.test("diagnose() finds nothing wrong on a healthy machine, whatever its host's memory", () => {
  assert.deepEqual(complaints({}), []);
});

Deno.test("diagnose() counts the host's memory against a software adapter, batches that wait included", () => {
  const levels = (freeMemory: number) =>
    complaints({ adapter: software, drivers: [], freeMemory }).map((c) => c.level);
  assert.deepEqual(levels(14 * GIB), ["warning", "problem"]); // 13 GiB and 18 batches
  assert.deepEqual(levels(14.2 * GIB), ["warning"]);
});

Deno.test("diagnose() knows two ways out of too little memory, where both are open", () => {
  const mend = (freeMemory: number, memoryLimit: string | null) =>
    complaints({
      ...{ adapter: software, drivers: [], freeMemory, smallerBatch: 32 },
      config: { ...healthy.config, memoryLimit },
    })[1].mend;
  // Of 10 GiB the 18 batches that wait take 1.125.
  assert.equal(mend(10 * GIB, null), "--memory-limit 8.88GiB trades time for it; --batch-size 32 fits");
  assert.equal(mend(10 * GIB, "12GiB"), "--batch-size 32 fits");
  assert.equal(mend(5 * GIB, null), "--batch-size 32 fits");
});

Deno.test("diagnose() advises a newer Mesa where the software driver is an old one", () => {
  const says = (vulkan: string) =>
    complaints({ adapter: software, freeMemory: 64 * GIB, drivers: [{ name: "lvp", vulkan }] }).map((c) =>
      c.says
    );
  assert.match(says("1.3.230")[1], /old \(Vulkan 1\.3\.230\)/);
  assert.equal(says("1.4.305").length, 1);
  assert.equal(says("1.3.296").length, 1);
});

Deno.test("diagnose() makes everything that keeps a run from starting a problem, with its remedy", () => {
  const failure = { failure: "it failed", remedy: "mend it" };
  const refused = { plan: { ...healthy.plan, refusal: "Cannot run" }, smallerBatch: 32 };
  const broken: Partial<Facts>[] = [
    { adapter: failure },
    refused,
    { decodedPerSecond: failure },
    { output: failure },
    { images: failure },
    { images: 63 },
  ];
  for (const facts of broken) {
    const found = complaints(facts);
    assert.deepEqual(found.map(({ level }) => level), ["problem"], JSON.stringify(facts));
    assert.ok(found[0].mend !== undefined);
  }
  assert.match(complaints(refused)[0].mend!, /--batch-size 32 /);
});

Deno.test("diagnose() warns of ranks that spend more than a quarter of a step on each other", () => {
  const ranks = (syncSeconds: number) => ({
    ranks: [{ host: "a", adapter: "Some GPU" }, { host: "b", adapter: "Some GPU" }],
    ...{ small: 5e-5, large: 0.08 },
    step: { seconds: 1, syncSeconds, stops: 43, exchangedBytes: 2 ** 27 },
  });
  assert.deepEqual(complaints({ ranks: ranks(0.2) }), []);
  const [{ level, says }] = complaints({ ranks: ranks(0.4) });
  assert.equal(level, "warning");
  assert.equal(
    says,
    "a step takes 1.00 s, 40 % of it to exchange 128 MiB between the ranks, for which it stops 43 times",
  );
});
