import assert from "node:assert/strict";
import { added, phaseTimer } from "./phase_timer.ts";

Deno.test("phaseTimer() charges every moment to one phase, and added() loses none of them", () => {
  let now = 0;
  const noted: unknown[][] = [];
  const time = phaseTimer((...mark) => noted.push(mark), () => now);
  const mark = (seconds: number, ...charged: Parameters<typeof time.mark>) => {
    now += 1000 * seconds;
    time.mark(...charged);
  };
  mark(1, "decode");
  mark(5, "submit", { device: 3, sync: 1.5 });
  const first = time.take();
  assert.deepEqual(first, {
    decode: 1,
    submit: 0.5,
    device: 3,
    sync: 1.5,
    checkpoint: 0,
    validate: 0,
    report: 0,
  });
  mark(2, "checkpoint");
  mark(0.25, "decode");
  const second = time.take();
  const device = { forward: 1, backward: 2 };
  const sum = added([{ host: first, device }, { host: second, device: { forward: 0.5 } }]);
  assert.deepEqual(sum.host, {
    decode: 1.25,
    submit: 0.5,
    device: 3,
    sync: 1.5,
    checkpoint: 2,
    validate: 0,
    report: 0,
  });
  assert.deepEqual(sum.device, { forward: 1.5, backward: 2 });
  assert.deepEqual(noted, [["decode", 0, 1000], ["submit", 1000, 6000], ["checkpoint", 6000, 8000], [
    "decode",
    8000,
    8250,
  ]]);
  assert.equal(Object.values(sum.host).reduce((total, seconds) => total + seconds), now / 1000);
  assert.equal(added([{ host: first, device }, { host: second, device: null }]).device, null);
});
