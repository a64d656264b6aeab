/** Where a command begins: the program takes a while to load, during which something may have to be said already. */
import "../pipeline/run/without_async_context.ts"; // before Effect
import { launchedAs } from "../pipeline/ranks/launch.ts";
import { COMMAND_ACCESS } from "./launch/access.ts";
import { voice } from "./terminal/voice.ts";

/** These say themselves what they do. */
const WITHOUT_VOICE = ["test", "watch"];

const [command = ""] = Deno.args;
const rank = launchedAs((name) => Deno.env.get(name))?.rank ?? 0;
if (rank === 0 && Object.hasOwn(COMMAND_ACCESS, command) && !WITHOUT_VOICE.includes(command)) {
  voice.start(`Starting slotcon ${command}`);
}
await import("./program.ts");
