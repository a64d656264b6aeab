/**
 * To be imported before Effect, by programs that run for long.
 *
 * Whenever a fiber waits, Effect 4.1 makes an `AsyncResource` of `node:async_hooks`, within the one of the wait before.
 * In Deno each of these keeps that one alive: some 430 bytes a wait, until the fiber ends, which a run's does after
 * weeks. Effect does without where there is no such module, so it is not found once: when Effect looks for it.
 */
type GetModule = (name: string) => unknown;
const { process } = globalThis as { process?: { getBuiltinModule?: GetModule } };
const found = process?.getBuiltinModule;
if (process !== undefined && found !== undefined) {
  process.getBuiltinModule = (name) => {
    if (name !== "node:async_hooks") return found.call(process, name);
    process.getBuiltinModule = found;
    return undefined;
  };
}
