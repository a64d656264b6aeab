/** Where a command begins. These are evaluated in turn; a dynamic import would do without Deno's cache of code. */
import "../pipeline/run/without_async_context.ts"; // before Effect
import "./launch/start_voice.ts"; // before the program
import "./program.ts";
