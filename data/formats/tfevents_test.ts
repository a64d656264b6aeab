import assert from "node:assert/strict";
import { eventFile } from "./tfevents.ts";

// Made by TensorBoard 2.21: its messages by protobuf, its RecordWriter.
const RECORDED = [
  "GAAAAAAAAACjf0siCQAAEED8VNlBGg1icmFpbi5FdmVudDoyM40v6REAAAAAAAAAnW21LgkAABBA/FTZQRCgjQY6AggBkJBf",
  "9W0AAAAAAAAAPU3mcQkAABBA/FTZQRCgjQYqXgomCgZjb25maWdCEAgHEgQSAggBQgZ8IMOpIHxKCgoGCgR0ZXh0IAIKGgoE",
  "bG9zcxUAAMA/Sg0KCQoHc2NhbGFycyABChgKB3Nsb3RzLzEiDQgDEMgBGAMiBP/YAAFHilWDNgAAAAAAAABPV4zvCQAAUED8",
  "VNlBEKGNBionCgsKBGxvc3MVAADAfwoYCgdzbG90cy8xIg0IAxDIARgDIgT/2AAB1s0XDQ==",
];

Deno.test("eventFile() gives the bytes that TensorBoard's own writer gives", () => {
  const time = 1700000000.25;
  const picture = { width: 200, height: 3, file: Uint8Array.of(255, 216, 0, 1) };
  const events = eventFile();
  const records = [
    events.start(time, 100000),
    events.summary(time, 100000, [
      { tag: "config", markdown: "| é |" },
      { tag: "loss", scalar: 1.5 },
      { tag: "slots/1", picture },
    ]),
    events.summary(time + 1, 100001, [{ tag: "loss", scalar: NaN }, { tag: "slots/1", picture }]),
  ];
  const bytes = records.flatMap((record) => [...record]);
  assert.deepEqual(bytes, [...Uint8Array.fromBase64(RECORDED.join(""))]);
});
