/**
 * The program of each rank in device_test.ts: opens the device that `--device` names, and prints its description as
 * JSON.
 */
import { Effect } from "effect";
import { Collective } from "../../ops/runtime/collective.ts";
import { Gpu } from "../../ops/runtime/gpu.ts";
import { rankGpu } from "./device.ts";
import { ranks } from "./mpi.ts";

const [device, allowShared] = Deno.args;
await Effect.gen(function* () {
  const { rank } = yield* Collective;
  const { report } = yield* Gpu;
  console.log(JSON.stringify({ rank, adapter: report.description }));
}).pipe(
  Effect.provide(rankGpu({ device, allowSharedDevice: allowShared === "shared" })),
  Effect.provide(ranks({ watchdogMinutes: 1 })),
  Effect.catch(({ message }) => Effect.sync(() => (console.error(message), Deno.exit(1)))),
  Effect.runPromise,
);
