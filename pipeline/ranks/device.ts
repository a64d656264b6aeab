/**
 * An adapter for every rank of a machine. WebGPU cannot choose among equal adapters, but environment variables can, if
 * they are set before a process first asks for an adapter:
 *
 * - `DRI_PRIME` and `MESA_VK_DEVICE_SELECT` are read by a layer of Mesa between Vulkan's loader and the drivers of all
 *   vendors; it comes with Mesa's drivers (Debian: mesa-vulkan-drivers), and other drivers may be installed, too;
 * - `VK_DRIVER_FILES` restricts Vulkan's loader to one driver.
 *
 * CUDA_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES and the like have no effect on Vulkan.
 */
import { Data, Effect, Layer } from "effect";
import type { Backend } from "../../ops/graph/lowering.ts";
import { layers } from "../../ops/runtime/adapters.ts";
import { Collective, type CollectiveError, gatherTexts } from "../../ops/runtime/collective.ts";
import { Gpu, type GpuError } from "../../ops/runtime/gpu.ts";
import { CHOOSING, type VulkanDevice, vulkanDevices } from "./vulkan.ts";

/** There is no adapter such as --device asks for, or ranks share one. */
export class DeviceError extends Data.Error<{
  readonly reason: string;
  readonly remedy: string;
}> {
  /** Tells this error from others, as `Effect.catchTag` does. */
  readonly _tag = "DeviceError";
  /** The tag, with which a stack trace begins. */
  override get name(): string {
    return this._tag;
  }

  /** What could not be done, and why, as a sentence. */
  override get message(): string {
    return `${this.reason}: ${this.remedy}`;
  }
}

/**
 * The option `--device` taken apart: an implementation of WebGPU, and the adapters that the ranks of a machine take in
 * turn.
 */
export const parseDevice = (
  device: string,
): { readonly backend: Backend; readonly adapters: readonly string[] } => {
  const [backend, adapters = ""] = device.split(/:(.*)/s);
  return { backend: backend as Backend, adapters: adapters.split(",").filter((adapter) => adapter !== "") };
};

/**
 * The device of this rank as a service: the adapter that `--device` names for it, or if it names none and there are
 * several of hardware, one for each rank of the machine in turn. Fails with a `DeviceError` where there is no such
 * adapter, or ranks share one and may not.
 */
export const rankGpu = (
  config: { readonly device: string; readonly allowSharedDevice: boolean },
): Layer.Layer<Gpu, GpuError | DeviceError | CollectiveError> =>
  Layer.unwrap(Effect.gen(function* () {
    const { backend, adapters } = parseDevice(config.device);
    const { rank, world } = yield* Collective;
    const host = Deno.hostname();
    const hosts = yield* gatherTexts(host);
    const local = hosts.slice(0, rank).filter((other) => other === host).length;
    const wanted = adapters.length > 0
      ? yield* named(adapters, local)
      : world === 1 || CHOOSING.some((name) => Deno.env.has(name))
      ? null
      : unnamed(local);
    if (wanted !== null) yield* select(wanted);
    const check = world === 1 || config.allowSharedDevice
      ? Layer.empty
      : Layer.effectDiscard(expectOwn(host));
    return check.pipe(Layer.provideMerge(layers[backend]));
  }));

const named = (adapters: readonly string[], local: number) =>
  local < adapters.length ? Effect.succeed(adapters[local]) : new DeviceError({
    reason: `--device names ${adapters.length} adapters, and this machine has more ranks than that`,
    remedy: "name one for each, or start fewer ranks",
  });

const unnamed = (local: number): string | null => {
  const hardware = numbered(vulkanDevices() ?? []).filter(({ kind }) => kind !== "cpu");
  return hardware.length < 2 ? null : String(local % hardware.length);
};

/** Devices in the order of their numbers for `--device`: by kind, then by PCI address. */
export const numbered = (devices: readonly VulkanDevice[]): readonly VulkanDevice[] => {
  const place = ({ kind, pci }: VulkanDevice) =>
    `${["discrete", "integrated", "virtual", "other", "cpu"].indexOf(kind)} ${pci ?? "x"}`;
  return devices.toSorted((a, b) => place(a) < place(b) ? -1 : place(a) > place(b) ? 1 : 0);
};

/** How to restrict a process to one adapter. */
export interface DeviceEnvironment {
  /** The environment variables to set. */
  readonly variables: Readonly<Record<string, string>>;
  /** The only device that the process then sees; null where it is not known. */
  readonly device: VulkanDevice | null;
}

/**
 * The environment that restricts a process to an adapter, given by its number, its PCI address or the manifest of its
 * driver; null where there is no such adapter.
 */
export const deviceEnvironment = (
  adapter: string,
  devices: readonly VulkanDevice[],
): DeviceEnvironment | null => {
  if (adapter.endsWith(".json")) {
    return { variables: { VK_DRIVER_FILES: adapter, VK_ICD_FILENAMES: adapter }, device: null };
  }
  const all = numbered(devices);
  const device = /^\d+$/.test(adapter)
    ? all[Number(adapter)]
    : all.find(({ pci }) => pci !== null && (pci === adapter || pci.endsWith(`:${adapter}`)));
  if (device === undefined) return null;
  const { pci, vendor, device: id } = device;
  const variables: Record<string, string> = pci === null
    ? { MESA_VK_DEVICE_SELECT: `${vendor.toString(16)}:${id.toString(16)}!` }
    : { DRI_PRIME: `pci-${pci.replace(/[:.]/g, "_")}!`, MESA_VK_DEVICE_SELECT_FORCE_DEFAULT_DEVICE: "1" };
  return { variables, device };
};

const select = Effect.fnUntraced(function* (adapter: string) {
  const devices = vulkanDevices();
  if (devices === null) {
    return yield* new DeviceError({
      reason: `adapter ${adapter} cannot be chosen: there is no Vulkan here to choose it`,
      remedy: "--device can name adapters on Linux only",
    });
  }
  const chosen = deviceEnvironment(adapter, devices);
  if (chosen === null) {
    const known = numbered(devices).map(({ name, pci }, i) =>
      `${i} ${name}${pci === null ? "" : ` (${pci})`}`
    );
    return yield* new DeviceError({
      reason: `there is no adapter ${adapter}`,
      remedy: `there are ${known.join(", ") || "none"}`,
    });
  }
  for (const name of CHOOSING) Deno.env.delete(name);
  for (const [name, value] of Object.entries(chosen.variables)) Deno.env.set(name, value);
  const [found] = vulkanDevices() ?? [];
  if (found === undefined || chosen.device !== null && found.uuid !== chosen.device.uuid) {
    return yield* new DeviceError({
      reason: `adapter ${adapter} was asked for, and Vulkan offers ${found?.name ?? "none"}`,
      remedy: adapter.endsWith(".json")
        ? "is that the manifest of a Vulkan driver?"
        : "adapters are chosen by Mesa's device-select layer (Debian: the package mesa-vulkan-drivers)",
    });
  }
});

/** Fails with a `DeviceError` where another rank of this machine uses the same adapter. */
const expectOwn = Effect.fnUntraced(function* (host: string) {
  const { description } = (yield* Gpu).report;
  const devices = vulkanDevices() ?? [];
  const device = devices.find(({ name }) => name === description) ?? devices[0];
  const all = yield* gatherTexts(JSON.stringify([host, device?.uuid ?? description]));
  const own = all[(yield* Collective).rank];
  const sharing = [...all.keys()].filter((rank) => all[rank] === own);
  if (sharing.length < 2) return;
  return yield* new DeviceError({
    reason: `Ranks ${sharing.join(" and ")} share an adapter of "${host}", ${description}`,
    remedy:
      "name one for each, such as --device native:0,1 (slotcon doctor lists them), start fewer ranks, or let " +
      "them with --allow-shared-device",
  });
});
