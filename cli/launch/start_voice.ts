/** Starts the voice of a command, before the program is evaluated, which takes a while. */
import { launchedAs } from "../../pipeline/ranks/launch.ts";
import { voice } from "../terminal/voice.ts";
import { COMMAND_ACCESS } from "./access.ts";

/** These say themselves what they do. */
const WITHOUT_VOICE = ["test", "watch"];

const [command = ""] = Deno.args;
const rank = launchedAs((name) => Deno.env.get(name))?.rank ?? 0;
if (rank === 0 && Object.hasOwn(COMMAND_ACCESS, command) && !WITHOUT_VOICE.includes(command)) {
  voice.start(`Starting slotcon ${command}`);
}
